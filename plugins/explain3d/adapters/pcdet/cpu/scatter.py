"""Stand-ins for the functions of ``torch_scatter`` that OpenPCDet's pillar encoders call.

They are made of torch's own differentiable reductions, so gradients flow as through the originals.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scatter_mean(src: Tensor, index: Tensor, dim: int = -1) -> Tensor:
    """Averages rows of the same index.

    Args:
        src: (N, ...) values, a row a point; ``dim`` is 0 in all of OpenPCDet.
        index: (N,) int64, the row of the result that a row belongs to.
        dim: Dimension that is reduced.

    Returns:
        (max(index) + 1, ...) along ``dim``; 0 where no row belongs.
    """
    return _reduced(src, index, dim, 'mean')


def scatter_max(src: Tensor, index: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Takes the largest of rows of the same index, channel by channel.

    Args:
        src: (N, ...) values.
        index: (N,) int64, the row of the result that a row belongs to.
        dim: Dimension that is reduced.

    Returns:
        The maxima, as ``scatter_mean``, and int64 of the same shape: the first row that attains
        each of them, or N where no row belongs. The gradient goes to that row alone.
    """
    src = src.movedim(dim, 0)
    top = _reduced(src.detach(), index, 0, 'amax')
    rows = _like(torch.arange(len(src), device=src.device), src)
    candidate = torch.where(src.detach() == top[index], rows, len(src))
    first = torch.full(top.shape, len(src), dtype=torch.int64, device=src.device)
    first = first.scatter_reduce(0, _like(index, src), candidate, 'amin')
    padded = torch.cat([src, src.new_zeros(1, *src.shape[1:])])
    return padded.gather(0, first).movedim(0, dim), first.movedim(0, dim)


def _reduced(src: Tensor, index: Tensor, dim: int, how: str) -> Tensor:
    src = src.movedim(dim, 0)
    rows = int(index.max()) + 1 if len(index) else 0
    out = src.new_zeros(rows, *src.shape[1:])
    out = out.scatter_reduce(0, _like(index, src), src, how, include_self=False)
    return out.movedim(0, dim)


def _like(index: Tensor, src: Tensor) -> Tensor:
    """The index of the first dimension of ``src``, expanded to its shape."""
    return index.view(-1, *[1] * (src.ndim - 1)).expand_as(src)
