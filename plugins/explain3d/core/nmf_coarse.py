"""A head start for the factorisation: concepts of a part of the rows, by accelerated updates.

A layer has thousands of rows and few channels, so that a part of the rows already tells the
concepts: first every eighth row, then every second. Where there are too few rows for that, the
start is NNDSVD of all. Factors are (B, r, M) and (B, r, C) as in ``nmf_updates``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .nmf_init import nndsvd
from .nmf_updates import equal_weights, hals

#: One row of so many is looked at, for so many iterations.
LEVELS = ((8, 40), (2, 15))
#: Sweeps that fit the weights of more rows to the concepts.
SWEEPS = 4
#: With fewer rows, or fewer times the channels, a part would not tell the concepts.
LEAST_ROWS, LEAST_TIMES = 2000, 16

#: Extrapolation: how far at first; by what it and its limit grow; by what it shrinks at a restart.
_FIRST, _GROWTH, _LIMIT_GROWTH, _SHRINK = 0.5, 1.01, 1.005, 1.5


def coarse(features: Tensor, lengths: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
    """Returns the factors to start with.

    Args:
        features: (B, M, C) features >= 0, rank <= min(M, C).
        lengths: Rows of each frame; the others are padding.
        rank: Number r of concepts.

    Returns:
        (B, r, M) weights and (B, r, C) concepts. Each frame's are what they would be without the
        others, to rounding.
    """
    C = features.shape[2]
    many = [length >= max(LEAST_ROWS, LEAST_TIMES * C) for length in lengths]
    if not any(many):
        return nndsvd(features, rank)
    if all(many):
        return _head_start(features, rank)
    H = features.new_empty(len(lengths), rank, features.shape[1])
    W = features.new_empty(len(lengths), rank, C)
    chosen = torch.tensor(many, device=features.device)
    H[chosen], W[chosen] = _head_start(features[chosen], rank)
    H[~chosen], W[~chosen] = nndsvd(features[~chosen], rank)
    return H, W


def _head_start(features: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    W = None
    for stride, iterations in LEVELS:
        part = features[:, ::stride].contiguous()
        H, W = nndsvd(part, rank) if W is None else (_fitted(part, W), W)
        _, W = accelerated(part, H, W, iterations)
    return _fitted(features, W), W


def _fitted(features: Tensor, W: Tensor) -> Tensor:
    """Returns (B, r, M) weights for concepts, close to the best."""
    H = equal_weights(features, W)
    product, gram = W @ features.mT, W @ W.mT
    for _ in range(SWEEPS):
        hals(H, product, gram)
    return H


@dataclass
class _Point:
    """Factors, and the value of ``|F - H^T W|^2`` there, (B,) in float64."""

    H: Tensor
    W: Tensor
    value: Tensor


def accelerated(F: Tensor, H: Tensor, W: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Repeats HALS from points ahead (Ang and Gillis, 2019), each frame by itself.

    Both factors are updated where they were, plus a part of the last step; a step that raises the
    objective is undone, and the next one goes less far ahead. The objective of what is returned
    is at most that of the start, beyond rounding.

    Args:
        F: (B, M, C) features.
        H: (B, r, M) weights to start with; left as they are.
        W: (B, r, C) concepts, likewise.
        iterations: How many.

    Returns:
        The factors.
    """
    norm = _inner(F, F)
    best = _Point(H, W, _value(norm, W @ F.mT, W @ W.mT, H))
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
        best = _Point(
            torch.where(good, new_H, best.H),
            torch.where(good, ahead_W, best.W),
            torch.minimum(value, best.value),
        )
        here = torch.where(good, new_H, best.H), torch.where(good, new_W, best.W)
        ahead = torch.where(good, ahead_H, best.H), torch.where(good, ahead_W, best.W)
        longer = torch.minimum(limit, beta * _GROWTH)
        limit = torch.where(good, (limit * _LIMIT_GROWTH).clamp(max=1), beta)
        beta = torch.where(good, longer, beta / _SHRINK)
    return best.H, best.W


def _beyond(old: Tensor, new: Tensor, beta: Tensor) -> Tensor:
    return torch.lerp(old, new, 1 + beta).clamp_(min=0)


def _value(norm: Tensor, product: Tensor, gram: Tensor, H: Tensor) -> Tensor:
    """Returns |F|^2 - 2 <W F^T, H> + <W W^T, H H^T>."""
    return norm - 2 * _inner(product, H) + _inner(gram, H @ H.mT)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Returns the (B,) inner products; the longer sums in float64."""
    return (a * b).sum(dim=(-2, -1), dtype=torch.float64)
