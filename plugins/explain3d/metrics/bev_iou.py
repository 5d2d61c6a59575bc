"""Intersection over union of bird's-eye-view segmentation, as a whole and by distance.

Intersections and unions are counted in cells and added up over a data set before they are divided
(SimpleBEV, Lift-Splat-Shoot): an average of the frames' ratios would weigh empty frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError


def ring_masks(x: Tensor, z: Tensor, rings: Sequence[tuple[float, float]]) -> Tensor:
    """Returns which cells belong to which ring around the origin: (R, Z, X) bool.

    Args:
        x: (X,) centres of the columns, metres from the origin.
        z: (Z,) centres of the rows, metres.
        rings: (low, high) distances, metres; a cell belongs where low <= distance < high.
    """
    distance = torch.hypot(z[:, None], x[None])
    low, high = distance.new_tensor(rings).reshape(-1, 2, 1, 1).unbind(1)
    return (distance >= low) & (distance < high)


def intersection_and_union(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    regions: Tensor | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """Counts the cells of intersection and union.

    Args:
        logits: (..., Z, X) before the sigmoid.
        target: (..., Z, X), positive where there is an object.
        valid: (..., Z, X) bool: cells outside count nowhere. None: all are valid.
        regions: (R, Z, X) bool: also count within these. None: no regions.
        threshold: A cell is predicted where the sigmoid is above this, in (0, 1).

    Returns:
        (1 + R, 2) int64: intersection and union of the whole map, then of each region.

    Raises:
        InputError: If shapes differ or the threshold is no probability.
    """
    if not 0 < threshold < 1:
        raise InputError(f'Expected a threshold in (0, 1), received {threshold}.')
    if logits.shape != target.shape or (valid is not None and valid.shape != logits.shape):
        shapes = [None if t is None else tuple(t.shape) for t in (logits, target, valid)]
        raise InputError(
            f'Expected logits, target and valid of one shape, received {shapes}: evaluate on the '
            f'grid that the model predicts on.'
        )
    predicted = logits > math.log(threshold / (1 - threshold))
    target = target > 0
    valid = torch.ones_like(target) if valid is None else valid.bool()
    both, either = predicted & target & valid, (predicted | target) & valid
    counts = [torch.stack([both.sum(), either.sum()])]
    for region in () if regions is None else regions:
        counts.append(torch.stack([(both & region).sum(), (either & region).sum()]))
    return torch.stack(counts)


def iou(counts: Tensor) -> Tensor:
    """Returns intersection over union (...,) of counts (..., 2); not a number where both are 0."""
    return counts[..., 0].double() / counts[..., 1].double()
