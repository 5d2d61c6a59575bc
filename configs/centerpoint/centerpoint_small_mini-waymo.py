"""Voxel CenterPoint for mini Waymo, all round, sized for a CPU: 0.2 m voxels, 51.2 m.

Layer for layer the detector of configs/pcdet/centerpoint_small_mini-waymo.yaml, but for the
velocity, which is always zero here.
"""

_base_ = [
    '../_base_/models/centerpoint_small.py',
    '../_base_/datasets/mini_waymo.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]

detector_range = [-51.2, -51.2, -2, 51.2, 51.2, 4]
voxel_size = [0.2, 0.2, 0.15]
# Centres are decoded a little beyond the range: objects at its border are still detected.
post_center_range = [-54.0, -54.0, -4.0, 54.0, 54.0, 6.0]

model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            point_cloud_range=detector_range, voxel_size=voxel_size, max_voxels=(40000, 60000)
        )
    ),
    pts_voxel_encoder=dict(num_features=5),
    pts_middle_encoder=dict(in_channels=5, output_channels=128),
    pts_backbone=dict(in_channels=256),
    pts_bbox_head=dict(
        tasks=[dict(num_class=3, class_names=['Car', 'Pedestrian', 'Cyclist'])],
        bbox_coder=dict(
            pc_range=detector_range[:2],
            post_center_range=post_center_range,
            voxel_size=voxel_size[:2],
        ),
    ),
    train_cfg=dict(pts=dict(point_cloud_range=detector_range, voxel_size=voxel_size)),
    test_cfg=dict(
        pts=dict(
            post_center_limit_range=post_center_range,
            # One task of three classes: suppression among all of them, by overlap.
            min_radius=[3.0],
            voxel_size=voxel_size[:2],
            pc_range=detector_range[:2],
        )
    ),
)
train_dataloader = dict(batch_size=4)
# What fits of the mini world's CenterPoint; its first and last layers have other shapes.
load_from = 'checkpoints/centerpoint_small_miniworld.pth'
lr = 0.003
max_iters = 1000
optim_wrapper = dict(clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters, pct_start=0.3, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
