"""Small two-stage detectors. mmcv has no CPU kernels for their pooling: simple ones stand in."""

import tiny_detectors as tiny
import torch
from mmdet3d.registry import MODELS
from torch import nn

GRID = 4


def pool(features, places, frames, rois):
    """(R, GRID, GRID, GRID, C) means around each proposal, closer points weighing more."""
    distance = torch.cdist(rois[:, 1:4], places)
    same = rois[:, :1] == frames[None].to(rois.dtype)
    weight = torch.exp(-distance) * same
    mean = weight @ features / weight.sum(1, keepdim=True)
    steps = torch.linspace(0.5, 1.5, GRID**3).view(1, GRID, GRID, GRID, 1)
    return mean[:, None, None, None] * steps


@MODELS.register_module()
class TinyExtractor(nn.Module):
    def forward(self, feats, coordinate, batch_inds, rois):
        return pool(feats, coordinate, batch_inds, rois)


@MODELS.register_module()
class TinyPointsEncoder(nn.Module):
    """Takes the voxels of the third stage for key points."""

    def forward(self, inputs, feats, proposals):
        stage = feats['multi_scale_3d_feats'][2]
        frames, cells = stage.indices[:, :1].float(), stage.indices[:, 1:].float()
        places = cells.flip(1) * torch.tensor([0.8, 0.8, 0.4]) + torch.tensor(tiny.RANGE[:3])
        keypoints = torch.cat([frames, places], 1)
        return dict(
            keypoints=keypoints,
            keypoint_features=stage.features,
            fusion_keypoint_features=stage.features,
        )


def rpn_head():
    return {**tiny.anchor_head(), 'type': 'PartA2RPNHead'}


TEST = dict(
    rpn=dict(nms_pre=200, nms_post=30, max_num=30, nms_thr=0.8, score_thr=0, use_rotate_nms=False),
    rcnn=dict(use_rotate_nms=True, use_raw_score=True, nms_thr=0.3, score_thr=0.0),
)
LOSSES = dict(
    loss_bbox=dict(type='mmdet.SmoothL1Loss', reduction='sum'),
    loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, reduction='sum'),
)


def pv_rcnn():
    return dict(
        type='PointVoxelRCNN',
        data_preprocessor=tiny.PREPROCESSOR,
        voxel_encoder=dict(type='HardSimpleVFE'),
        middle_encoder=dict(tiny.SPARSE_ENCODER, return_middle_feats=True),
        points_encoder=dict(type='TinyPointsEncoder'),
        backbone=tiny.backbone(16),
        neck=tiny.NECK,
        rpn_head=rpn_head(),
        roi_head=dict(
            type='PVRCNNRoiHead',
            num_classes=3,
            semantic_head=dict(
                type='ForegroundSegmentationHead',
                in_channels=16,
                loss_seg=dict(type='mmdet.FocalLoss', use_sigmoid=True, activated=True),
            ),
            bbox_roi_extractor=dict(type='TinyExtractor'),
            bbox_head=dict(
                type='PVRCNNBBoxHead',
                in_channels=16,
                grid_size=GRID,
                num_classes=3,
                shared_fc_channels=(16, 16),
                reg_channels=(16, 16),
                cls_channels=(16, 16),
                **LOSSES,
            ),
        ),
        test_cfg=TEST,
    )


def parta2():
    return dict(
        type='PartA2',
        data_preprocessor=tiny.PREPROCESSOR,
        voxel_encoder=dict(type='HardSimpleVFE'),
        middle_encoder=dict(
            type='SparseUNet',
            in_channels=4,
            sparse_shape=[41, 64, 64],
            base_channels=8,
            output_channels=8,
            encoder_channels=((8,), (8, 8), (16, 16), (16, 16)),
            encoder_paddings=((1,), (1, 1), (1, 1), ((0, 1, 1), 1)),
            decoder_channels=((16, 16, 16), (16, 16, 8), (8, 8, 8), (8, 8, 8)),
            decoder_paddings=((1, 0), (1, 0), (0, 0), (0, 1)),
        ),
        backbone=tiny.backbone(16),
        neck=tiny.NECK,
        rpn_head=rpn_head(),
        roi_head=dict(
            type='PartAggregationROIHead',
            num_classes=3,
            semantic_head=dict(
                type='PointwiseSemanticHead',
                in_channels=8,
                loss_seg=dict(type='mmdet.FocalLoss', use_sigmoid=True),
                loss_part=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            ),
            seg_roi_extractor=dict(type='TinyExtractor'),
            bbox_roi_extractor=dict(type='TinyExtractor'),
            bbox_head=dict(
                type='PartA2BboxHead',
                num_classes=3,
                seg_in_channels=8,
                part_in_channels=4,
                seg_conv_channels=[8],
                part_conv_channels=[8],
                merge_conv_channels=[8],
                down_conv_channels=[8, 8],
                shared_fc_channels=[8, 16],
                cls_channels=[16],
                reg_channels=[16],
                roi_feat_size=GRID,
                **LOSSES,
            ),
        ),
        test_cfg=TEST,
    )
