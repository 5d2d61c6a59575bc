"""SimpleBEV, cameras and LiDAR without metadata, on nuScenes (LMD, Table 3)."""

_base_ = './simplebev_r101_radar-camera_nuscenes.py'
model = dict(rasterizers=dict(_delete_=True, lidar=dict(type='explain3d.PointRasterizer')))
train_pipeline = [
    {{_base_.load_cameras}},
    {{_base_.augment_cameras}},
    {{_base_.load_lidar}},
    {{_base_.to_random_camera}},
    {{_base_.make_maps}},
    {{_base_.pack}},
]
test_pipeline = [
    {{_base_.load_cameras}},
    {{_base_.resize_cameras}},
    {{_base_.load_lidar}},
    {{_base_.to_front_camera}},
    {{_base_.make_maps}},
    {{_base_.pack}},
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
