"""Stand-ins of ``pointnet2_stack_cuda`` that gather features, and their gradients."""

from __future__ import annotations

from torch import Tensor

from .stacked import start_of_rows


def group_points_wrapper(
    batch_size: int,
    centres: int,
    channels: int,
    samples: int,
    features: Tensor,
    features_batch_cnt: Tensor,
    idx: Tensor,
    idx_batch_cnt: Tensor,
    out: Tensor,
) -> int:
    """Gathers the features of each centre's points.

    Args:
        batch_size: B.
        centres: M.
        channels: C.
        samples: S.
        features: (N, C) features of the points.
        features_batch_cnt: (B,) how many of them are each frame's.
        idx: (M, S) int32 points of each centre, counted within its frame.
        idx_batch_cnt: (B,) how many centres are each frame's.
        out: (M, C, S), written.
    """
    out.copy_(features[_rows(idx, idx_batch_cnt, features_batch_cnt)].transpose(1, 2))
    return 1


def group_points_grad_wrapper(
    batch_size: int,
    centres: int,
    channels: int,
    points: int,
    samples: int,
    grad_out: Tensor,
    idx: Tensor,
    idx_batch_cnt: Tensor,
    features_batch_cnt: Tensor,
    grad_features: Tensor,
) -> int:
    """Adds the gradient of ``group_points_wrapper`` to ``grad_features``, (N, C).

    Args:
        batch_size: B.
        centres: M.
        channels: C.
        points: N.
        samples: S.
        grad_out: (M, C, S) gradient of the output.
        idx: As in the forward pass.
        idx_batch_cnt: The same.
        features_batch_cnt: The same.
        grad_features: (N, C), added to.
    """
    rows = _rows(idx, idx_batch_cnt, features_batch_cnt)
    grad = grad_out.transpose(1, 2).reshape(-1, grad_out.shape[1])
    grad_features.index_add_(0, rows.reshape(-1), grad)
    return 1


def three_interpolate_wrapper(features: Tensor, idx: Tensor, weight: Tensor, out: Tensor) -> None:
    """Writes weighted sums of three features each.

    Args:
        features: (M, C) features.
        idx: (N, 3) int32 rows of ``features``.
        weight: (N, 3) weights.
        out: (N, C), written.
    """
    out.copy_((features[idx.long()] * weight[..., None]).sum(dim=1))


def three_interpolate_grad_wrapper(
    grad_out: Tensor, idx: Tensor, weight: Tensor, grad_features: Tensor
) -> None:
    """Adds the gradient of ``three_interpolate_wrapper`` to ``grad_features``, (M, C).

    Args:
        grad_out: (N, C) gradient of the output.
        idx: As in the forward pass.
        weight: The same.
        grad_features: (M, C), added to.
    """
    grad = grad_out[:, None] * weight[..., None]
    grad_features.index_add_(0, idx.long().reshape(-1), grad.reshape(-1, grad.shape[2]))


def _rows(idx: Tensor, idx_counts: Tensor, feature_counts: Tensor) -> Tensor:
    """(M, S) int64 rows among all frames' features of indices within a frame."""
    return idx.long() + start_of_rows(idx_counts, feature_counts)[:, None]
