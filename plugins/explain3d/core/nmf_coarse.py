"""A head start for the factorisation: concepts of a part of the rows, the best of several tries.

The objective has many local minima, about one percent apart, and which one is met depends on the
start. A layer has thousands of rows and few channels, so that a part of the rows already tells the
concepts and how good they are: several starts are tried over few rows, all at once, and the best
go on over more. Where there are too few rows for that, the start is NNDSVD of all. Factors are
(B, r, M) and (B, r, C) as in ``nmf_updates``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .nmf_accelerated import accelerated
from .nmf_init import nndsvd
from .nmf_sample import RowSampler
from .nmf_updates import equal_weights, hals, quotient


@dataclass(frozen=True)
class Level:
    """A part of the rows, and what is done over it.

    Attributes:
        stride: One row of so many is looked at; at least ``LEAST_PART``.
        iterations: Of the accelerated updates.
        candidates: How many starts are followed, the best of the level before.
    """

    stride: int
    iterations: int
    candidates: int


LEVELS = (Level(16, 14, 12), Level(8, 8, 4), Level(4, 6, 2), Level(2, 4, 1))
#: Sweeps that fit the weights of more rows to the concepts.
SWEEPS = 4
#: With fewer rows, or fewer times the channels, a part would not tell the concepts.
LEAST_ROWS, LEAST_TIMES = 2000, 16
LEAST_PART = 500


def coarse(features: Tensor, lengths: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
    """Returns the factors to start with; as many concepts as channels are the channels: exact.

    Args:
        features: (B, M, C) features >= 0, rank <= min(M, C).
        lengths: Rows of each frame; the others are padding.
        rank: Number r of concepts.

    Returns:
        (B, r, M) weights and (B, r, C) concepts. Each frame's are what they would be without the
        others, to rounding.
    """
    C = features.shape[2]
    if rank == C:
        return features.mT.clone(), torch.eye(C).to(features).repeat(len(lengths), 1, 1)
    many = [length >= max(LEAST_ROWS, LEAST_TIMES * C) for length in lengths]
    if not any(many):
        return nndsvd(features, rank)
    if all(many):
        return _head_start(features, lengths, rank)
    H = features.new_empty(len(lengths), rank, features.shape[1])
    W = features.new_empty(len(lengths), rank, C)
    chosen = torch.tensor(many, device=features.device)
    long = [length for length, is_long in zip(lengths, many, strict=True) if is_long]
    H[chosen], W[chosen] = _head_start(features[chosen], long, rank)
    H[~chosen], W[~chosen] = nndsvd(features[~chosen], rank)
    return H, W


def _head_start(features: Tensor, lengths: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
    sampler = RowSampler(features, lengths)
    H = W = None
    for level in LEVELS:
        part = sampler.part([max(length // level.stride, LEAST_PART) for length in lengths])
        if W is None:
            H, W = _candidates(part, sampler, rank, level.candidates)
        else:
            W = W[:, : level.candidates]
            H = _fitted_each(part, W)
        W = _followed(part, H, W, level.iterations)
    W = W[:, 0]
    return _fitted(features, W), W


def _candidates(part: Tensor, sampler: RowSampler, rank: int, count: int) -> tuple[Tensor, Tensor]:
    """Returns (B, K, r, N) weights and (B, K, r, C) concepts: NNDSVD, then rows as concepts.

    A candidate's rows are drawn one from each of r equal parts of the sum of weights, with numbers
    from the CPU, the same for each frame.
    """
    H, W = (factor[:, None] for factor in nndsvd(part, rank))
    if count == 1:
        return H, W
    drawn = torch.rand(count - 1, rank, generator=torch.Generator().manual_seed(0))
    places = ((torch.arange(rank) + drawn.double()) / rank).flatten().to(part.device)
    rows = sampler.take(sampler.at(places.expand(len(part), -1)))
    rows = quotient(rows, torch.linalg.vector_norm(rows, dim=-1, keepdim=True))
    rows = rows.view(len(part), count - 1, rank, -1)
    return torch.cat([H, _fitted_each(part, rows)], 1), torch.cat([W, rows], 1)


def _followed(part: Tensor, H: Tensor, W: Tensor, iterations: int) -> Tensor:
    """Returns (B, K, r, C) concepts after some iterations, the best first."""
    B, K = W.shape[:2]
    found = accelerated(_each(part, K), H.flatten(0, 1), W.flatten(0, 1), iterations)
    order = found.value.view(B, K).argsort(dim=1)
    return found.W.view_as(W).gather(1, order[..., None, None].expand_as(W))


def _fitted_each(part: Tensor, W: Tensor) -> Tensor:
    """Returns (B, K, r, N) weights for (B, K, r, C) concepts."""
    return _fitted(_each(part, W.shape[1]), W.flatten(0, 1)).unflatten(0, W.shape[:2])


def _each(part: Tensor, candidates: int) -> Tensor:
    return part[:, None].expand(-1, candidates, -1, -1).flatten(0, 1)


def _fitted(features: Tensor, W: Tensor) -> Tensor:
    """Returns (B, r, M) weights for concepts, close to the best."""
    H = equal_weights(features, W)
    product, gram = W @ features.mT, W @ W.mT
    for _ in range(SWEEPS):
        hals(H, product, gram)
    return H
