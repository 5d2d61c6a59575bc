"""Stand-ins for ``iou3d_nms_cuda``: rotated overlap and suppression in the bird's-eye view.

Boxes are OpenPCDet's (x, y, z, dx, dy, dz, heading), which are this project's (x, y, z, l, w, h,
yaw). The overlap is exact, in float64 and rounded to the output's type; the compiled kernels work
in float32 and take a corner up to 1 cm outside the other box for one inside, so theirs differs by
as much where boxes nearly touch. A box that is not finite overlaps nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explain3d.core.boxes import bev_intersection, bev_iou

PairOverlap = Callable[[Tensor, Tensor], Tensor]

# Pairs of boxes compared at a time: about 100 MB of temporaries in float64.
_PAIRS_AT_ONCE = 1 << 18

# Boxes that are settled among themselves before they suppress the rest.
_BLOCK = 256


def boxes_overlap_bev_gpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """Writes the shared areas of all pairs, square metres.

    Args:
        boxes_a: (A, 7) boxes.
        boxes_b: (B, 7) boxes.
        out: (A, B), written.
    """
    _fill_pairs(bev_intersection, boxes_a, boxes_b, out)
    return 1


def boxes_iou_bev_gpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """Writes the intersections over union of all pairs; arguments as the function above."""
    _fill_pairs(bev_iou, boxes_a, boxes_b, out)
    return 1


def boxes_iou_bev_cpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """The same as ``boxes_iou_bev_gpu``: OpenPCDet has one name for each device."""
    return boxes_iou_bev_gpu(boxes_a, boxes_b, out)


def paired_boxes_overlap_bev_gpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """Writes the area that box i of ``boxes_a`` shares with box i of ``boxes_b``.

    Args:
        boxes_a: (K, 7) boxes.
        boxes_b: (K, 7) boxes.
        out: (K, 1), written.
    """
    out.view(-1).copy_(bev_intersection(_finite(boxes_a), _finite(boxes_b), aligned=True))
    return 1


def boxes_aligned_overlap_bev_gpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """The same as ``paired_boxes_overlap_bev_gpu``, as in OpenPCDet."""
    return paired_boxes_overlap_bev_gpu(boxes_a, boxes_b, out)


def boxes_aligned_iou_bev_cpu(boxes_a: Tensor, boxes_b: Tensor, out: Tensor) -> int:
    """Writes the intersection over union of box i with box i; arguments as above."""
    out.view(-1).copy_(bev_iou(_finite(boxes_a), _finite(boxes_b), aligned=True))
    return 1


def nms_gpu(boxes: Tensor, keep: Tensor, threshold: float) -> int:
    """Keeps boxes that no kept box before them overlaps by more than ``threshold``.

    Args:
        boxes: (K, 7) boxes, the best first.
        keep: (K,) int64; its first entries are overwritten by the indices of the kept boxes, in
            ascending order, the others are left as they are.
        threshold: Largest rotated intersection over union that is let pass.

    Returns:
        How many boxes are kept.
    """
    return _suppress(bev_iou, boxes, keep, threshold)


def nms_normal_gpu(boxes: Tensor, keep: Tensor, threshold: float) -> int:
    """As ``nms_gpu``, but the boxes' headings count as 0."""
    return _suppress(_upright_iou, boxes, keep, threshold)


def _suppress(overlap: PairOverlap, boxes: Tensor, keep: Tensor, threshold: float) -> int:
    """Greedy suppression in blocks: each is settled alone, then suppresses what comes after it."""
    boxes = _finite(boxes)
    alive = torch.arange(len(boxes), device=boxes.device)
    kept = [alive[:0]]
    while len(alive):
        block, alive = alive[:_BLOCK], alive[_BLOCK:]
        block = block[_settled(_pairs(overlap, boxes[block], boxes[block]) > threshold)]
        kept.append(block)
        suppressed = _any_above(overlap, boxes[block], boxes[alive], threshold)
        alive = alive[~suppressed]
    indices = torch.cat(kept)
    keep[: len(indices)] = indices.to(keep.device)
    return len(indices)


def _settled(above: Tensor) -> Tensor:
    """(K,) bool of the boxes kept within a block, from (K, K) whether two boxes exclude each other.

    A box stays if none before it both excludes it and stays itself. Repeating that rule settles at
    least one more box each time, from the first on, so it ends with the sequential answer.
    """
    earlier = above.triu(diagonal=1)
    stays = torch.ones(len(above), dtype=torch.bool, device=above.device)
    while True:
        settled = ~(earlier & stays[:, None]).any(dim=0)
        if torch.equal(settled, stays):
            return stays
        stays = settled


def _any_above(overlap: PairOverlap, a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """(B,) bool whether some box of ``a`` overlaps the box of ``b`` by more than ``threshold``."""
    step = max(1, _PAIRS_AT_ONCE // max(1, len(a)))
    parts = [(overlap(a, part) > threshold).any(dim=0) for part in b.split(step)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool, device=b.device)


def _fill_pairs(overlap: PairOverlap, a: Tensor, b: Tensor, out: Tensor) -> None:
    out.copy_(_pairs(overlap, _finite(a), _finite(b)))


def _pairs(overlap: PairOverlap, a: Tensor, b: Tensor) -> Tensor:
    """(A, B) overlaps of finite boxes, a limited number of pairs at a time."""
    if not len(a) or not len(b):
        return a.new_zeros(len(a), len(b))
    step = max(1, _PAIRS_AT_ONCE // len(b))
    return torch.cat([overlap(part, b) for part in a.split(step)])


def _upright_iou(a: Tensor, b: Tensor) -> Tensor:
    """(A, B) intersection over union of the rectangles of heading 0, in float64."""
    a, b = a.double(), b.double()
    half_a, half_b = a[:, None, 3:5] / 2, b[:, 3:5] / 2
    low = torch.maximum(a[:, None, :2] - half_a, b[:, :2] - half_b)
    high = torch.minimum(a[:, None, :2] + half_a, b[:, :2] + half_b)
    shared = (high - low).clamp(min=0).prod(dim=2)
    union = a[:, None, 3:5].prod(dim=2) + b[:, 3:5].prod(dim=1) - shared
    return (shared / torch.where(union > 0, union, torch.inf)).float()


def _finite(boxes: Tensor) -> Tensor:
    """The (K, 7) boxes without their graph; those that are not finite have no size."""
    boxes = boxes.detach()
    return torch.where(boxes.isfinite().all(dim=1, keepdim=True), boxes, 0.0)
