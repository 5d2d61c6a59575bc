"""Voxel CenterPoint on Waymo: MMDetection3D 1.4 ships both halves, but no config that joins them.

There is no model-zoo checkpoint for it either: train with tools/train.py, or convert one.
"""

_base_ = [
    'mmdet3d::_base_/datasets/waymoD5-3d-3class.py',
    'mmdet3d::_base_/models/centerpoint_voxel01_second_secfpn_nus.py',
    'mmdet3d::_base_/schedules/cyclic-20e.py',
    'mmdet3d::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['explain3d.adapters.mmdet3d', 'explain3d.adapters.mmdet3d.transforms'],
    allow_failed_imports=False,
)
# A multiple of 0.8 m on each side, as eight-fold downsampling asks for.
detector_range = [-75.2, -75.2, -2, 75.2, 75.2, 4]
voxel_size = [0.1, 0.1, 0.15]
post_center_range = [-80, -80, -10.0, 80, 80, 10.0]
class_names = ['Car', 'Pedestrian', 'Cyclist']

model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            max_num_points=5,
            voxel_size=voxel_size,
            max_voxels=(150000, 150000),
            point_cloud_range=detector_range,
        )
    ),
    pts_middle_encoder=dict(sparse_shape=[41, 1504, 1504]),
    pts_bbox_head=dict(
        tasks=[dict(num_class=3, class_names=class_names)],
        bbox_coder=dict(
            pc_range=detector_range[:2],
            voxel_size=voxel_size[:2],
            post_center_range=post_center_range,
        ),
    ),
    train_cfg=dict(
        pts=dict(
            grid_size=[1504, 1504, 40],
            voxel_size=voxel_size,
            point_cloud_range=detector_range,
        )
    ),
    test_cfg=dict(
        pts=dict(
            voxel_size=voxel_size[:2],
            pc_range=detector_range[:2],
            post_center_limit_range=post_center_range,
            pre_max_size=4096,
            post_max_size=500,
            nms_thr=0.7,
        )
    ),
)
train_pipeline = [
    dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=6, use_dim=5),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(
        type='RandomFlip3D',
        sync_2d=False,
        flip_ratio_bev_horizontal=0.5,
        flip_ratio_bev_vertical=0.5,
    ),
    dict(
        type='GlobalRotScaleTrans',
        rot_range=[-0.78539816, 0.78539816],
        scale_ratio_range=[0.95, 1.05],
    ),
    dict(type='PointsRangeFilter', point_cloud_range=detector_range),
    dict(type='ObjectRangeFilter', point_cloud_range=detector_range),
    dict(type='explain3d.AppendZeroVelocity'),
    dict(type='PointShuffle'),
    dict(type='Pack3DDetInputs', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
