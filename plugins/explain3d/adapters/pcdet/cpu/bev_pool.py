"""Stand-in for ``bev_pool_ext``, with which BevFusion sums lifted image features by cell."""

from __future__ import annotations

import torch
from torch import Tensor


def _cells(geom_feats: Tensor, D: int, H: int, W: int) -> Tensor:  # noqa: N803
    x, y, z, batch = geom_feats.long().T
    return ((batch * D + z) * H + x) * W + y


def bev_pool_forward(
    x: Tensor,
    geom_feats: Tensor,
    interval_lengths: Tensor,
    interval_starts: Tensor,
    B: int,  # noqa: N803 - the extension's names
    D: int,  # noqa: N803
    H: int,  # noqa: N803
    W: int,  # noqa: N803
) -> Tensor:
    """Returns the (B, D, H, W, C) sums of features by cell, zeros where there are none.

    Args:
        x: (N, C) features, those of a cell next to each other.
        geom_feats: (N, 4) int x, y, z, batch of each, inside of the grid.
        interval_lengths: Not used: the cells say what belongs together.
        interval_starts: Likewise.
        B: Number of frames.
        D: Cells along z.
        H: Cells along x.
        W: Cells along y.
    """
    B, D, H, W = (int(size) for size in (B, D, H, W))  # noqa: N806
    out = x.new_zeros(B * D * H * W, x.shape[1])
    out.index_add_(0, _cells(geom_feats, D, H, W), x)
    return out.view(B, D, H, W, x.shape[1])


def bev_pool_backward(
    out_grad: Tensor,
    geom_feats: Tensor,
    interval_lengths: Tensor,
    interval_starts: Tensor,
    B: int,  # noqa: N803
    D: int,  # noqa: N803
    H: int,  # noqa: N803
    W: int,  # noqa: N803
) -> Tensor:
    """Returns the (N, C) gradient of the features; arguments as in ``bev_pool_forward``."""
    rows = out_grad.reshape(-1, out_grad.shape[-1])
    return torch.index_select(rows, 0, _cells(geom_feats, int(D), int(H), int(W)))
