"""SimpleBEV from cameras, radar with metadata, and LiDAR: one sensor more than the authors'."""

_base_ = './simplebev_r101.py'

model = dict(rasterizers=dict(lidar=dict(type='explain3d.PointRasterizer')))
