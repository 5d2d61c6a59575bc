"""A fusion detector of few channels over 24 m, heads to choose from, and frames for it."""

import copy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from explain3d.locations import config_path

CAMERAS = ('CAM_FRONT', 'CAM_BACK')
RANGE = [-12, -12, -3, 12, 12, 3]
IMAGE = (32, 48)
CELLS = 24

#: A camera at the origin of the LiDAR frame that looks along x: its x is -y, its y is -z.
LOOKING_ALONG_X = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
#: One that looks backwards.
LOOKING_BACK = np.diag([-1.0, -1.0, 1.0, 1.0]) @ LOOKING_ALONG_X
CAM2IMG = np.array([[24, 0, 24, 0], [0, 24, 16, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])

ANCHOR_HEAD = dict(
    type='Anchor3DHead',
    num_classes=2,
    in_channels=16,
    feat_channels=16,
    use_direction_classifier=True,
    anchor_generator=dict(
        type='AlignedAnchor3DRangeGenerator',
        ranges=[[-12, -12, -1.8, 12, 12, -1.8]],
        sizes=[[4.0, 1.8, 1.6]],
        rotations=[0, 1.57],
    ),
    bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder'),
    loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_bbox=dict(type='mmdet.SmoothL1Loss'),
    loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False),
    test_cfg=dict(
        use_rotate_nms=True, nms_across_levels=False, nms_thr=0.1, score_thr=0.1,
        min_bbox_size=0, nms_pre=50, max_num=20,
    ),
)  # fmt: skip


def config(head='center'):
    """The shipped configuration, cut down."""
    found = Config.fromfile(config_path('_base_/models/bevfusion_small.py')).model
    found.data_preprocessor.voxel_layer.point_cloud_range = RANGE
    found.camera_names = CAMERAS
    found.img_branch.grid = dict(x=(-12, 12, CELLS), y=(-12, 12, CELLS), z=(-2, 2, 2))
    found.img_branch.encoder.backbone.base_channels = 8
    found.img_branch.encoder.update(in_channels=(16, 32), mid_channels=8, out_channels=4)
    found.pts_middle_encoder.update(
        sparse_shape=[41, 96, 96], base_channels=4, encoder_channels=((4,), (8, 8), (8, 8)),
        output_channels=4,
    )  # fmt: skip
    found.fuser.update(in_channels=[8, 16], out_channels=8)
    found.pts_backbone.update(in_channels=8, out_channels=[8, 8], layer_nums=[1, 1])
    found.pts_neck.update(in_channels=[8, 8], out_channels=[8, 8])
    if head == 'anchor':
        found.pts_bbox_head = copy.deepcopy(ANCHOR_HEAD)
        return found
    center = found.pts_bbox_head
    center.update(in_channels=16, share_conv_channel=8)
    center.separate_head.update(head_conv=8, init_bias=-1.0)
    center.bbox_coder.max_num, center.test_cfg.post_max_size = 30, 12
    center.bbox_coder.pc_range = center.test_cfg.pc_range = RANGE[:2]
    center.train_cfg.update(point_cloud_range=RANGE, grid_size=[96, 96, 40])
    return found


def build(head='center', seed=0):
    """Builds the detector with weights, and statistics of BatchNorm, that are not trivial."""
    from mmdet3d.registry import MODELS

    init_default_scope('mmdet3d')
    torch.manual_seed(seed)
    model = MODELS.build(config(head)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            # Untrained convolutions shrink what goes through them.
            module.weight.data.uniform_(1.5, 3)
            module.bias.data.normal_(0, 0.3)
    return model


def item(index=0, points=600, truth=False):
    """An item of a data set."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(index)
    cloud = rng.uniform([-11, -11, -2, 0], [11, 11, 1, 1], (points, 4)).astype(np.float32)
    images = rng.integers(0, 255, (len(CAMERAS), 3, *IMAGE)).astype(np.uint8)
    sample = Det3DDataSample(
        metainfo=dict(
            token=f't{index}', sample_idx=index, cam_names=CAMERAS,
            box_type_3d=LiDARInstance3DBoxes, cam2img=np.stack([CAM2IMG] * 2),
            cam2lidar=np.stack([LOOKING_ALONG_X, LOOKING_BACK]),
        )
    )  # fmt: skip
    boxes = torch.tensor(
        [[5.0, 2, -1.8, 4, 1.8, 1.6, 0.3, 1, 0], [-6, -4, -1.7, 4, 2, 1.5, 2, 0, 0]]
    )
    if truth:
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([0, 4])
        )
    sample.eval_ann_info = dict(
        gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), gt_labels_3d=np.array([0, 1])
    )
    inputs = dict(points=torch.from_numpy(cloud), img=torch.from_numpy(images))
    return dict(inputs=inputs, data_samples=sample)


def batch(*indices, **options):
    return pseudo_collate([item(i, **options) for i in indices])
