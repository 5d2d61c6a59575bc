"""Rotated overlap and suppression, by explain3d's own geometry."""

import torch

from explain3d.core.boxes import bev_iou, iou_3d


def boxes_iou_bev(boxes_a, boxes_b):
    return bev_iou(boxes_a, boxes_b)


def boxes_iou3d_gpu(boxes_a, boxes_b):
    return iou_3d(boxes_a, boxes_b)


def nms_gpu(boxes, scores, thresh, pre_maxsize=None, **_):
    order = scores.sort(descending=True, stable=True)[1][:pre_maxsize]
    left, kept = order, []
    while len(left):
        kept.append(left[0])
        overlap = bev_iou(boxes[left[:1]].detach(), boxes[left[1:]].detach())[0]
        left = left[1:][overlap <= thresh]
    return torch.stack(kept) if kept else order, None
