"""Stand-ins of ``roiaware_pool3d_cuda`` that tell which points lie in which boxes.

Boxes are (x, y, z, dx, dy, dz, heading) about their centres. A point is inside if its height is
within the box, faces included, and its place in the box's own frame is less than a margin outside
the footprint: 1e-5 m where OpenPCDet would use a GPU, 1e-2 m in its CPU function. Everything is
computed in float32, as the compiled operators do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Box-point pairs at a time: 16 MB a temporary in float32.
_PAIRS_AT_ONCE = 1 << 22

GPU_MARGIN = 1e-5
_CPU_MARGIN = 1e-2


def points_in_boxes_cpu(boxes: Tensor, points: Tensor, out: Tensor) -> int:
    """Writes 1 for each pair of a box and a point inside, 0 for the others.

    Args:
        boxes: (K, 7) boxes.
        points: (N, 3) points.
        out: (K, N) int32, written.
    """
    for first, inside, _ in inside_by_boxes(boxes, points, _CPU_MARGIN):
        out[first : first + len(inside)] = inside.to(out.dtype)
    return 1


def points_in_boxes_gpu(boxes: Tensor, points: Tensor, out: Tensor) -> int:
    """Writes for each point the index of the first box that it lies in.

    Args:
        boxes: (B, K, 7) boxes of each frame.
        points: (B, N, 3) points of each frame.
        out: (B, N) int32, written where a box is found, else left as it is (-1 by the caller).
    """
    for frame in range(len(boxes)):
        found = torch.full_like(out[frame], boxes.shape[1])
        for first, inside, _ in inside_by_boxes(boxes[frame], points[frame], GPU_MARGIN):
            number = torch.arange(first, first + len(inside), dtype=out.dtype, device=out.device)
            number = torch.where(inside, number[:, None], boxes.shape[1])
            found = torch.minimum(found, number.amin(dim=0))
        out[frame] = torch.where(found < boxes.shape[1], found, out[frame])
    return 1


def inside_by_boxes(
    boxes: Tensor, points: Tensor, margin: float
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yields which points lie in which boxes, some boxes at a time.

    Args:
        boxes: (K, 7) boxes.
        points: (N, 3) points.
        margin: Metres that a point may lie outside of the footprint.

    Yields:
        The index of the first box, (k, N) bool whether a point is inside, and (k, N, 3) the
        points in the boxes' own frames, relative to their centres.
    """
    step = max(1, _PAIRS_AT_ONCE // max(1, len(points)))
    for first in range(0, len(boxes), step):
        part = boxes[first : first + step, None]
        offset = points - part[..., :3]
        cos, sin = part[..., 6].cos(), part[..., 6].sin()
        local = torch.stack(
            [
                cos * offset[..., 0] + sin * offset[..., 1],
                cos * offset[..., 1] - sin * offset[..., 0],
                offset[..., 2],
            ],
            dim=2,
        )
        half = part[..., 3:6] / 2
        inside = (local[..., :2].abs() < half[..., :2] + margin).all(dim=2)
        yield first, inside & (local[..., 2].abs() <= half[..., 2]), local
