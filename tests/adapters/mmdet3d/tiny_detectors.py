"""Small detectors with random weights: 12.8 m x 12.8 m, few channels, nothing trained."""

import copy

import numpy as np
import torch

RANGE = [0, -6.4, -3, 12.8, 6.4, 1]
VOXEL = [0.2, 0.2, 0.1]
CLASSES = ['Pedestrian', 'Cyclist', 'Car']
NORM1D = dict(type='BN1d', eps=1e-3, momentum=0.01)

SPARSE_ENCODER = dict(
    type='SparseEncoder',
    in_channels=4,
    sparse_shape=[41, 64, 64],
    order=('conv', 'norm', 'act'),
    base_channels=8,
    output_channels=8,
    encoder_channels=((8,), (8, 8), (16, 16), (16, 16)),
    encoder_paddings=((1,), (1, 1), (1, 1), ((0, 1, 1), 1)),
)
BASICBLOCK_ENCODER = dict(
    type='SparseEncoder',
    in_channels=4,
    sparse_shape=[41, 64, 64],
    order=('conv', 'norm', 'act'),
    base_channels=8,
    output_channels=8,
    encoder_channels=((8, 8, 16), (16, 16, 16), (16, 16, 16), (16, 16)),
    encoder_paddings=((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
    block_type='basicblock',
)
PREPROCESSOR = dict(
    type='Det3DDataPreprocessor',
    voxel=True,
    voxel_layer=dict(
        max_num_points=5,
        point_cloud_range=RANGE,
        voxel_size=VOXEL,
        max_voxels=(2000, 2000),
    ),
)
PILLAR_PREPROCESSOR = dict(
    type='Det3DDataPreprocessor',
    voxel=True,
    voxel_layer=dict(
        max_num_points=8,
        point_cloud_range=RANGE,
        voxel_size=[0.2, 0.2, 4],
        max_voxels=(2000, 2000),
    ),
)
PILLAR_ENCODER = dict(
    type='PillarFeatureNet',
    in_channels=4,
    feat_channels=[8],
    with_distance=False,
    voxel_size=[0.2, 0.2, 4],
    point_cloud_range=RANGE,
)
NECK = dict(type='SECONDFPN', in_channels=[16, 16], upsample_strides=[1, 2], out_channels=[16, 16])
LIMITS = [-10, -10, -10, 20, 20, 10]


def backbone(in_channels, strides=(1, 2)):
    return dict(
        type='SECOND',
        in_channels=in_channels,
        layer_nums=[1, 1],
        layer_strides=list(strides),
        out_channels=[16, 16],
    )


def anchor_head(**changes):
    ranges = [[0, -6.4, -1.0, 12.8, 6.4, -1.0]] * 2 + [[0, -6.4, -1.8, 12.8, 6.4, -1.8]]
    return dict(
        type='Anchor3DHead',
        num_classes=3,
        in_channels=32,
        feat_channels=32,
        use_direction_classifier=True,
        anchor_generator=dict(
            type='Anchor3DRangeGenerator',
            ranges=ranges,
            sizes=[[0.8, 0.6, 1.73], [1.76, 0.6, 1.73], [3.9, 1.6, 1.56]],
            rotations=[0, 1.57],
            reshape_out=False,
        ),
        diff_rad_by_sin=True,
        bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder'),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='mmdet.SmoothL1Loss'),
        loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False),
        **changes,
    )


def center_head(voxel_size, factor, with_velocity=True):
    heads = dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2))
    if with_velocity:
        heads['vel'] = (2, 2)
    return dict(
        type='CenterHead',
        in_channels=32,
        tasks=[
            dict(num_class=2, class_names=['Pedestrian', 'Cyclist']),
            dict(num_class=1, class_names=['Car']),
        ],
        common_heads=heads,
        share_conv_channel=16,
        bbox_coder=dict(
            type='CenterPointBBoxCoder',
            pc_range=RANGE[:2],
            post_center_range=LIMITS,
            max_num=50,
            score_threshold=0.0,
            out_size_factor=factor,
            voxel_size=voxel_size[:2],
            code_size=9 if with_velocity else 7,
        ),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3),
        norm_bbox=True,
    )


ANCHOR_TEST = dict(
    use_rotate_nms=True,
    nms_across_levels=False,
    nms_thr=0.1,
    score_thr=0.0,
    min_bbox_size=0,
    nms_pre=1000,
    max_num=30,
)
CENTER_TEST = dict(
    pts=dict(
        post_center_limit_range=LIMITS,
        nms_type='rotate',
        score_threshold=0.0,
        nms_thr=0.2,
        pre_max_size=100,
        post_max_size=10,
        min_radius=[1, 1],
    )
)


def second(**changes):
    return dict(
        type='VoxelNet',
        data_preprocessor=PREPROCESSOR,
        voxel_encoder=dict(type='HardSimpleVFE'),
        middle_encoder=SPARSE_ENCODER,
        backbone=backbone(16),
        neck=NECK,
        bbox_head=anchor_head(),
        test_cfg=ANCHOR_TEST,
        **changes,
    )


def pointpillars():
    return dict(
        type='VoxelNet',
        data_preprocessor=PILLAR_PREPROCESSOR,
        voxel_encoder=PILLAR_ENCODER,
        middle_encoder=dict(type='PointPillarsScatter', in_channels=8, output_shape=[64, 64]),
        backbone=backbone(8, (2, 2)),
        neck=NECK,
        bbox_head=anchor_head(),
        test_cfg=ANCHOR_TEST,
    )


def centerpoint_voxel():
    return dict(
        type='CenterPoint',
        data_preprocessor=PREPROCESSOR,
        pts_voxel_encoder=dict(type='HardSimpleVFE', num_features=4),
        pts_middle_encoder=BASICBLOCK_ENCODER,
        pts_backbone=backbone(16),
        pts_neck=NECK,
        pts_bbox_head=center_head(VOXEL, 8),
        test_cfg=CENTER_TEST,
    )


def centerpoint_pillar():
    return dict(
        type='CenterPoint',
        data_preprocessor=PILLAR_PREPROCESSOR,
        pts_voxel_encoder=PILLAR_ENCODER,
        pts_middle_encoder=dict(type='PointPillarsScatter', in_channels=8, output_shape=[64, 64]),
        pts_backbone=backbone(8, (2, 2)),
        pts_neck=dict(NECK, upsample_strides=[0.5, 1]),
        pts_bbox_head=center_head([0.2, 0.2, 4], 4, with_velocity=False),
        test_cfg=CENTER_TEST,
    )


MODELS = {
    'second': second,
    'pointpillars': pointpillars,
    'centerpoint_voxel': centerpoint_voxel,
    'centerpoint_pillar': centerpoint_pillar,
}


#: What the configurations say, and 51.2 m x 51.2 m in its place.
WIDER = {
    str(RANGE): [0, -25.6, -3, 51.2, 25.6, 1],
    str(RANGE[:2]): [0, -25.6],
    str([41, 64, 64]): [41, 256, 256],
    str(LIMITS): [-10, -60, -10, 80, 60, 10],
}


def wider(value):
    """Returns a configuration for a range of 51.2 m x 51.2 m, of which a detection sees a part."""
    if str(value) in WIDER:
        return WIDER[str(value)]
    if isinstance(value, dict):
        return {key: wider(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) == 6 and value[1:2] == [-6.4]:
            return [0, -25.6, value[2], 51.2, 25.6, value[5]]
        return type(value)(wider(part) for part in value)
    return value


def build(config, seed=0):
    """Builds a detector whose random weights give features and boxes that differ by place."""
    from mmdet3d.registry import MODELS as REGISTRY
    from mmengine.config import ConfigDict
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet3d')
    torch.manual_seed(seed)
    model = REGISTRY.build(ConfigDict(copy.deepcopy(config)))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            noise = torch.randn(parameter.shape, generator=generator)
            gain = 1.5
            if 'head' in name:  # No class, no place and no size is to win everywhere.
                gain, noise = 0.5, noise - noise.mean(1, keepdim=True)
            parameter.data.copy_(gain * noise / fan_in**0.5)
        elif 'head' in name and name.endswith('bias'):
            parameter.data.zero_()
    model.dataset_meta = dict(classes=tuple(CLASSES))
    return model.eval()


def half(model):
    """A state dict in half precision, with the version information that spconv's loader needs."""
    state = model.state_dict()
    for name, value in state.items():
        state[name] = value.half() if value.is_floating_point() else value
    return state


def cloud(seed=0, count=800):
    """(N, 4) points on a few boxes and a ground plane."""
    rng = np.random.default_rng(seed)
    ground = np.c_[rng.uniform([0, -6.4], [12.8, 6.4], (count // 2, 2)), np.full(count // 2, -1.7)]
    centers = rng.uniform([2, -5, -1], [11, 5, -0.5], (4, 3))
    things = np.repeat(centers, count // 8, 0) + rng.uniform(-0.8, 0.8, (count // 8 * 4, 3))
    points = np.r_[ground, things]
    return np.c_[points, rng.uniform(0, 1, len(points))].astype(np.float32)


def batch(*clouds, names=None):
    """A collated batch as a data loader gives it."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    names = names or [f'{i:06d}' for i in range(len(clouds))]
    samples = [
        Det3DDataSample(
            metainfo=dict(lidar_path=f'data/{name}.bin', box_type_3d=LiDARInstance3DBoxes)
        )
        for name in names
    ]
    return dict(inputs=dict(points=[torch.as_tensor(c) for c in clouds]), data_samples=samples)
