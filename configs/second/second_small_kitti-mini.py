"""SECOND for real input, fine-tuned on 29 real KITTI frames from the mini world's weights.

The frames are found through EXPLAIN3D_REAL_DATA; ``tools/make_mini_dataset.py kitti-real`` makes
the info files and the ground-truth database in data/kitti-mini, linking to the frames.
"""

_base_ = [
    '../_base_/models/second_small.py',
    '../_base_/datasets/kitti_layout.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]
data_root = '{{$EXPLAIN3D_KITTI_MINI:data/kitti-mini}}/'
train_pipeline = [
    dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=4, use_dim=4),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(
        type='ObjectSample',
        db_sampler=dict(
            data_root=data_root,
            info_path=data_root + 'kitti_dbinfos_train.pkl',
            rate=1.0,
            prepare=dict(
                filter_by_difficulty=[-1],
                filter_by_min_points=dict(Car=5, Pedestrian=10, Cyclist=10),
            ),
            classes={{_base_.class_names}},
            sample_groups=dict(Car=12, Pedestrian=8, Cyclist=8),
            points_loader=dict(
                type='LoadPointsFromFile', coord_type='LIDAR', load_dim=4, use_dim=4
            ),
        ),
    ),
    dict(type='RandomFlip3D', flip_ratio_bev_horizontal=0.5),
    dict(
        type='GlobalRotScaleTrans',
        rot_range=[-0.78539816, 0.78539816],
        scale_ratio_range=[0.95, 1.05],
    ),
    dict(type='PointsRangeFilter', point_cloud_range={{_base_.point_cloud_range}}),
    dict(type='ObjectRangeFilter', point_cloud_range={{_base_.point_cloud_range}}),
    dict(type='PointShuffle'),
    dict(type='Pack3DDetInputs', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
# Most of these frames have a grey placeholder for a picture: none is shown.
lidar_only = dict(data_root=data_root, modality=dict(use_lidar=True, use_camera=False))
val_dataloader = dict(dataset=lidar_only)
test_dataloader = dict(dataset=lidar_only)
val_evaluator = dict(
    ann_file=data_root + 'kitti_infos_val.pkl',
    counts=[dict(score_thr=score, iou='bev', thr=0.5) for score in (0.4, 0.5, 0.55, 0.6, 0.7)],
)
test_evaluator = val_evaluator
load_from = 'checkpoints/second_small_miniworld.pth'
# 1000 iterations of batch 4: 138 passes over the 29 frames, each time with other pasted objects.
lr = 0.002
max_iters = 1000
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters, pct_start=0.3, by_epoch=False)
]
train_cfg = dict(max_iters=max_iters)
