"""Boxes from the cells of a heat map."""

import torch


def _topk(scores, K=40):
    """Scores (B, C, H, W) -> the K highest: score, cell, class, y, x, each (B, K)."""
    batch, classes, height, width = scores.shape
    best, cells = scores.flatten(2).topk(K)
    best, place = best.flatten(1).topk(K)
    cells = cells.flatten(1).gather(1, place)
    return (
        best, cells, torch.div(place, K, rounding_mode='floor').int(),
        torch.div(cells, width, rounding_mode='floor').float(), (cells % width).float(),
    )  # fmt: skip


def _transpose_and_gather_feat(feat, ind):
    """Maps (B, C, H, W) at cells (B, K) -> (B, K, C)."""
    return feat.flatten(2).gather(2, ind[:, None].expand(-1, feat.shape[1], -1)).transpose(1, 2)


def decode_bbox_from_heatmap(
    heatmap, rot_cos, rot_sin, center, center_z, dim, point_cloud_range=None, voxel_size=None,
    feature_map_stride=None, vel=None, iou=None, K=100, circle_nms=False, score_thresh=None,
    post_center_limit_range=None,
):  # fmt: skip
    scores, cells, classes, ys, xs = _topk(heatmap, K)
    offset = _transpose_and_gather_feat(center, cells)
    flat = torch.stack([xs, ys], -1) + offset
    step = flat.new_tensor(voxel_size[:2]) * feature_map_stride
    low = flat.new_tensor([float(value) for value in point_cloud_range[:2]])
    cos, sin = (_transpose_and_gather_feat(part, cells) for part in (rot_cos, rot_sin))
    parts = [flat * step + low, _transpose_and_gather_feat(center_z, cells)]
    parts += [_transpose_and_gather_feat(dim, cells), torch.atan2(sin, cos)]
    if vel is not None:
        parts.append(_transpose_and_gather_feat(vel, cells))
    boxes = torch.cat(parts, -1)
    limit = post_center_limit_range
    kept = ((boxes[..., :3] >= limit[:3]) & (boxes[..., :3] <= limit[3:])).all(2)
    if score_thresh is not None:
        kept &= scores > score_thresh
    return [
        {'pred_boxes': box[mask], 'pred_scores': score[mask], 'pred_labels': label[mask]}
        for box, score, label, mask in zip(boxes, scores, classes, kept, strict=True)
    ]
