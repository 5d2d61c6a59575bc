"""Voxel CenterPoint sized for a CPU: 0.1 m voxels over 51.2 m x 51.2 m, heat map every 0.4 m."""

detector_range = [0, -25.6, -3, 51.2, 25.6, 1]
voxel_size = [0.1, 0.1, 0.1]
# Centres are decoded a little beyond the range: objects at its border are still detected.
post_center_range = [-2.0, -28.0, -5.0, 54.0, 28.0, 3.0]

model = dict(
    type='CenterPoint',
    data_preprocessor=dict(
        type='Det3DDataPreprocessor',
        voxel=True,
        voxel_layer=dict(
            max_num_points=5,
            point_cloud_range=detector_range,
            voxel_size=voxel_size,
            max_voxels=(20000, 30000),
        ),
    ),
    pts_voxel_encoder=dict(type='HardSimpleVFE', num_features=4),
    pts_middle_encoder=dict(
        type='SparseEncoder',
        in_channels=4,
        sparse_shape=[41, 512, 512],
        output_channels=64,
        order=('conv', 'norm', 'act'),
    ),
    pts_backbone=dict(
        type='SECOND',
        in_channels=128,
        out_channels=[64, 128],
        layer_nums=[3, 3],
        layer_strides=[1, 2],
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
        conv_cfg=dict(type='Conv2d', bias=False),
    ),
    pts_neck=dict(
        type='SECONDFPN',
        in_channels=[64, 128],
        out_channels=[64, 64],
        upsample_strides=[2, 4],
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
        upsample_cfg=dict(type='deconv', bias=False),
    ),
    pts_bbox_head=dict(
        type='CenterHead',
        in_channels=128,
        tasks=[
            dict(num_class=1, class_names=['Pedestrian']),
            dict(num_class=1, class_names=['Cyclist']),
            dict(num_class=1, class_names=['Car']),
        ],
        # MMDetection3D's CenterHead trains on boxes with a velocity only; here it is always zero.
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=32,
        bbox_coder=dict(
            type='CenterPointBBoxCoder',
            pc_range=detector_range[:2],
            post_center_range=post_center_range,
            max_num=100,
            score_threshold=0.1,
            out_size_factor=4,
            voxel_size=voxel_size[:2],
            code_size=9,
        ),
        separate_head=dict(type='SeparateHead', head_conv=32, init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type='mmdet.L1Loss', reduction='mean', loss_weight=1.0),
        norm_bbox=True,
    ),
    train_cfg=dict(
        pts=dict(
            point_cloud_range=detector_range,
            grid_size=[512, 512, 40],
            voxel_size=voxel_size,
            out_size_factor=4,
            dense_reg=1,
            gaussian_overlap=0.1,
            max_objs=100,
            min_radius=2,
            code_weights=[1.0] * 8 + [0.2] * 2,
        )
    ),
    test_cfg=dict(
        pts=dict(
            post_center_limit_range=post_center_range,
            max_per_img=100,
            max_pool_nms=False,
            min_radius=[0.35, 0.85, 3.0],
            score_threshold=0.1,
            out_size_factor=4,
            voxel_size=voxel_size[:2],
            pc_range=detector_range[:2],
            nms_type='rotate',
            pre_max_size=500,
            post_max_size=50,
            nms_thr=0.1,
        )
    ),
)
