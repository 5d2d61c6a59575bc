"""The small SimpleBEV with cameras and LiDAR on a few real nuScenes keyframes.

They are found through EXPLAIN3D_REAL_DATA, in its folder nuscenes-keyframes; the weights are those
trained on the mini nuScenes.
"""

_base_ = './simplebev_small_lidar-camera_mini-nuscenes.py'
keyframes = dict(
    _delete_=True,
    type='explain3d.NuScenesKeyframes',
    data_root='{{$EXPLAIN3D_REAL_DATA:data}}/nuscenes-keyframes',
    with_lidar=True,
    blank_sensors=[],
    pipeline=[
        {{_base_.load_cameras}},
        {{_base_.resize_cameras}},
        {{_base_.load_lidar}},
        {{_base_.to_ego}},
        {{_base_.make_maps}},
        {{_base_.pack}},
    ],
)
val_dataloader = dict(dataset=keyframes)
test_dataloader = dict(dataset=keyframes)
load_from = 'checkpoints/simplebev_small_lidar-camera_mini-nuscenes.pth'
