"""SimpleBEV, camera and LiDAR without metadata: the LiDAR-camera set-up of LMD's Table 3."""

_base_ = './simplebev_r101.py'

model = dict(rasterizers=dict(_delete_=True, lidar=dict(type='explain3d.PointRasterizer')))
