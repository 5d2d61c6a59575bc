"""A small SimpleBEV with cameras and LiDAR on the simulated mini nuScenes, trained on a CPU."""

_base_ = './simplebev_small_radar-camera_mini-nuscenes.py'
model = dict(rasterizers=dict(_delete_=True, lidar=dict(type='explain3d.PointRasterizer')))
train_pipeline = [
    {{_base_.load_cameras}},
    {{_base_.augment_cameras}},
    {{_base_.load_lidar}},
    {{_base_.augment_frame}},
    {{_base_.make_maps}},
    dict(type='explain3d.BlankSensor', sensors=dict(lidar=0.3, camera=0.15)),
    {{_base_.pack}},
]
test_pipeline = [
    {{_base_.load_cameras}},
    {{_base_.resize_cameras}},
    {{_base_.load_lidar}},
    {{_base_.to_ego}},
    {{_base_.make_maps}},
    {{_base_.pack}},
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
max_iters = 2400
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max={{_base_.lr}},
        total_steps=max_iters,
        pct_start=0.15,
        by_epoch=False,
    )
]
