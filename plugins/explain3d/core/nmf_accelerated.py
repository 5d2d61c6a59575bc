"""Accelerated updates of the factorisation (Ang and Gillis, 2019).

Factors are (B, r, M) and (B, r, C) as in ``nmf_updates``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .nmf_updates import hals

#: Extrapolation: how far at first; by what it and its limit grow; by what it shrinks at a restart.
_FIRST, _GROWTH, _LIMIT_GROWTH, _SHRINK = 0.5, 1.01, 1.005, 1.5


@dataclass
class Point:
    """Factors, and the value of ``|F - H^T W|^2`` there, (B,) in float64."""

    H: Tensor
    W: Tensor
    value: Tensor


def accelerated(F: Tensor, H: Tensor, W: Tensor, iterations: int) -> Point:
    """Repeats HALS from points ahead, each frame by itself.

    Both factors are updated where they were, plus a part of the last step; a step that raises the
    objective is undone, and the next one goes less far ahead. The objective of what is returned
    is at most that of the start, beyond rounding.

    Args:
        F: (B, M, C) features.
        H: (B, r, M) weights to start with; left as they are.
        W: (B, r, C) concepts, likewise.
        iterations: How many.

    Returns:
        The factors and their value.
    """
    norm = _inner(F, F)
    best = Point(H, W, _value(norm, W @ F.mT, W @ W.mT, H))
    here, ahead = (H, W), (H, W)
    beta = F.new_full((len(F), 1, 1), _FIRST)
    limit = torch.ones_like(beta)
    for _ in range(iterations):
        new_W = ahead[1].clone()
        hals(new_W, ahead[0] @ F, ahead[0] @ ahead[0].mT)
        ahead_W = _beyond(here[1], new_W, beta)
        product, gram = ahead_W @ F.mT, ahead_W @ ahead_W.mT
        new_H = ahead[0].clone()
        hals(new_H, product, gram)
        ahead_H = _beyond(here[0], new_H, beta)
        value = _value(norm, product, gram, new_H)

        good = (value <= best.value)[:, None, None]
        ahead = torch.where(good, ahead_H, best.H), torch.where(good, ahead_W, best.W)
        here_W = torch.where(good, new_W, best.W)
        best = Point(
            torch.where(good, new_H, best.H),
            torch.where(good, ahead_W, best.W),
            torch.minimum(value, best.value),
        )
        here = best.H, here_W
        longer = torch.minimum(limit, beta * _GROWTH)
        limit = torch.where(good, (limit * _LIMIT_GROWTH).clamp(max=1), beta)
        beta = torch.where(good, longer, beta / _SHRINK)
    return best


def _beyond(old: Tensor, new: Tensor, beta: Tensor) -> Tensor:
    return torch.lerp(old, new, 1 + beta).clamp_(min=0)


def _value(norm: Tensor, product: Tensor, gram: Tensor, H: Tensor) -> Tensor:
    """Returns |F|^2 - 2 <W F^T, H> + <W W^T, H H^T>."""
    return norm - 2 * _inner(product, H) + _inner(gram, H @ H.mT)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Returns the (B,) inner products; sums over rows of the factors in float64."""
    return torch.linalg.vecdot(a, b).sum(dim=-1, dtype=torch.float64)
