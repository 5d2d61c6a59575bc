"""How much of a saliency map lies on its object: VEA, pointing game, energy-based pointing game.

All are between 0 and 1, more is better, and NaN for an object without a point in its box, for
which they are not defined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.normalize import min_max


def explanation_accuracy(
    saliency: Tensor, inside: Tensor, thresholds: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Visual explanation accuracy: the IoU of the salient points with those in the box.

    A point is salient if its saliency, scaled to [0, 1] over the frame, is above the threshold.

    Args:
        saliency: (K, N) finite saliency.
        inside: (K, N) bool, whether a point lies in the object's box.
        thresholds: T of them.

    Returns:
        (K,) mean over the thresholds, and (K,) largest value.

    Raises:
        InputError: If a value or threshold is not finite, there is no threshold, or the shapes
            differ.
    """
    maps = _normalised(saliency, inside)
    if not thresholds or not all(math.isfinite(limit) for limit in thresholds):
        raise InputError(f'Expected finite thresholds, one or more, received {thresholds}.')
    limits = torch.as_tensor(thresholds, dtype=maps.dtype, device=maps.device)
    overlaps = []
    for limit in limits:  # T is small; (T, K, N) need not be held.
        marked = maps > limit
        union = (marked | inside).sum(dim=1)
        overlaps.append((marked & inside).sum(dim=1).double() / union.clamp(min=1))
    table = _defined(torch.stack(overlaps), inside)
    return table.mean(dim=0), table.amax(dim=0)


def pointing_game(saliency: Tensor, inside: Tensor) -> Tensor:
    """Whether the most salient point lies in the box; of several, the share that does.

    Args:
        saliency: (K, N) finite saliency.
        inside: (K, N) bool.

    Returns:
        (K,) in [0, 1].

    Raises:
        InputError: As ``explanation_accuracy``.
    """
    maps = _normalised(saliency, inside)
    if maps.shape[1] == 0:
        return _defined(maps.new_zeros(len(maps)), inside)
    top = maps == maps.amax(dim=1, keepdim=True)
    return _defined((top & inside).sum(dim=1).double() / top.sum(dim=1), inside)


def energy_pointing_game(saliency: Tensor, inside: Tensor) -> Tensor:
    """Share of the saliency, scaled to [0, 1] over the frame, that lies in the box.

    A constant map has no saliency after scaling: 0.

    Args:
        saliency: (K, N) finite saliency.
        inside: (K, N) bool.

    Returns:
        (K,) in [0, 1].

    Raises:
        InputError: As ``explanation_accuracy``.
    """
    maps = _normalised(saliency, inside)
    total = maps.sum(dim=1)
    share = (maps * inside).sum(dim=1) / torch.where(total > 0, total, 1.0)
    return _defined(share, inside)


def _normalised(saliency: Tensor, inside: Tensor) -> Tensor:
    if saliency.shape != inside.shape or saliency.ndim != 2:
        raise InputError(
            f'Expected saliency and point membership of one shape (K, N), received '
            f'{tuple(saliency.shape)} and {tuple(inside.shape)}.'
        )
    return min_max(saliency.double())


def _defined(values: Tensor, inside: Tensor) -> Tensor:
    return values.masked_fill(~inside.any(dim=1), torch.nan)
