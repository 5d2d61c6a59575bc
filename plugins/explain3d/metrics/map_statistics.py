"""Properties of maps by themselves, and how alike two maps are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.normalize import require_finite
from .separation import pearson


def gini(maps: Tensor) -> Tensor:
    """Gini coefficient of each map: its sparseness (Hurley and Rickard, 2009).

    0 for equal values, (n - 1) / n when one of n points has everything.

    Args:
        maps: (K, N) finite values >= 0.

    Returns:
        (K,) float64; NaN for a map without any saliency, or of no points.

    Raises:
        InputError: If a value is not finite or negative.
    """
    require_finite(maps, 'map')
    if maps.ndim != 2 or bool((maps < 0).any()):
        raise InputError(
            f'Expected maps (K, N) of values >= 0, received shape {tuple(maps.shape)} with '
            f'{int((maps < 0).sum())} negative values: take absolute values first.'
        )
    values = maps.double().sort(dim=1).values
    N = values.shape[1]
    weight = 2 * torch.arange(1, N + 1, device=values.device, dtype=values.dtype) - N - 1
    total = values.sum(dim=1)
    return (values @ weight / (N * torch.where(total > 0, total, torch.nan))) if N else total / 0


def ranks(maps: Tensor) -> Tensor:
    """Returns the ranks of values along the last axis, 0 the smallest; ties share their mean.

    Args:
        maps: (K, N) values.

    Returns:
        (K, N) float64.
    """
    ordered, order = maps.sort(dim=1, stable=True)
    left = torch.searchsorted(ordered, ordered, right=False)
    right = torch.searchsorted(ordered, ordered, right=True)
    shared = (left + right - 1).double() / 2
    return torch.empty_like(shared).scatter_(1, order, shared)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of each pair of maps.

    The similarity of a map with that of a jittered frame (stability), or of a network with
    randomised weights (where a low one is good).

    Args:
        a: (K, N) finite maps.
        b: (K, N) finite maps over the same points.

    Returns:
        (K,) float64 in [-1, 1]; NaN where one of the two is constant.

    Raises:
        InputError: If the shapes differ, there are no points, or a value is not finite.
    """
    require_finite(a, 'map')
    require_finite(b, 'map')
    if len(a) == 0 and a.shape == b.shape:
        return a.new_zeros(0).double()
    return pearson(ranks(a), ranks(b))
