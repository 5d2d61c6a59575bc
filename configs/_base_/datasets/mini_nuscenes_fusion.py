"""The simulated mini nuScenes for detectors with cameras and LiDAR, in MMDetection3D's LiDAR frame.

``tools/make_mini_dataset.py nuscenes`` makes the data.
"""

dataset_type = 'NuScenesDataset'
data_root = '{{$EXPLAIN3D_MINI_NUSCENES:data/mini_nuscenes}}/'
class_names = ['car', 'truck', 'bus', 'bicycle', 'pedestrian']
metainfo = dict(classes=class_names)
point_cloud_range = [-48, -48, -3, 48, 48, 3]
img_size = (128, 224)
data_prefix = dict(
    pts='samples/LIDAR_TOP',
    sweeps='sweeps/LIDAR_TOP',
    CAM_FRONT='samples/CAM_FRONT',
    CAM_FRONT_LEFT='samples/CAM_FRONT_LEFT',
    CAM_FRONT_RIGHT='samples/CAM_FRONT_RIGHT',
    CAM_BACK='samples/CAM_BACK',
    CAM_BACK_LEFT='samples/CAM_BACK_LEFT',
    CAM_BACK_RIGHT='samples/CAM_BACK_RIGHT',
)
meta_keys = [
    *('sample_idx', 'token', 'lidar_path', 'box_type_3d', 'timestamp', 'num_pts_feats'),
    *('cam_names', 'cam2img', 'cam2lidar', 'img_shape', 'img_path', 'blanked'),
]

load_points = dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=5, use_dim=4)
range_filter = dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range)
load_cameras = dict(type='explain3d.LoadSurroundCameras')
to_lidar = dict(type='explain3d.CamerasToLidar')

train_pipeline = [
    load_points,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='GlobalRotScaleTrans', rot_range=[-0.4, 0.4], scale_ratio_range=[1.0, 1.0]),
    dict(
        type='RandomFlip3D',
        sync_2d=False,
        flip_ratio_bev_horizontal=0.5,
        flip_ratio_bev_vertical=0.5,
    ),
    range_filter,
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    load_cameras,
    dict(type='explain3d.ResizeCropCameras', size=img_size, scale=(0.9, 1.15), shift=10),
    to_lidar,
    # Without it the network leans on the sensor that measures positions.
    dict(type='explain3d.BlankSensor', sensors=dict(lidar=0.25, camera=0.15)),
    dict(
        type='Pack3DDetInputs',
        keys=['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d'],
        meta_keys=meta_keys,
    ),
]
test_pipeline = [
    load_points,
    range_filter,
    load_cameras,
    dict(type='explain3d.ResizeCropCameras', size=img_size),
    to_lidar,
    # "test_dataloader.dataset.pipeline.5.sensors=['camera']" tests without the cameras.
    dict(type='explain3d.BlankSensor', sensors=[]),
    dict(type='Pack3DDetInputs', keys=['points', 'img'], meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='nuscenes_infos_train.pkl',
        data_prefix=data_prefix,
        pipeline=train_pipeline,
        modality=dict(use_lidar=True, use_camera=True),
        use_valid_flag=True,
        test_mode=False,
        metainfo=metainfo,
        box_type_3d='LiDAR',
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='nuscenes_infos_val.pkl',
        data_prefix=data_prefix,
        pipeline=test_pipeline,
        modality=dict(use_lidar=True, use_camera=True),
        use_valid_flag=True,
        test_mode=True,
        metainfo=metainfo,
        box_type_3d='LiDAR',
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='explain3d.OverlapAP', iou_thr=[0.25, 0.5], point_cloud_range=point_cloud_range
)
test_evaluator = val_evaluator
