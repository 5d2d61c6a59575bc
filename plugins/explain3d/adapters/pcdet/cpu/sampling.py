"""Stand-ins of ``pointnet2_stack_cuda`` and ``pointnet2_batch_cuda`` that pick spread-out points.

Farthest point sampling is sequential by its definition: each point depends on all before it. One
step is a few operations on all points of all frames that are equally long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from explain3d.core.errors import InputError

from .stacked import square


def farthest_point_sampling_wrapper(
    batch_size: int, points: int, samples: int, xyz: Tensor, temp: Tensor, out: Tensor
) -> int:
    """Picks the first point, then always the point farthest from those picked.

    Of points equally far the first is taken; the compiled operator takes any of them, which one
    depends on how its threads are laid out. Fewer points than samples repeat the first one.

    Args:
        batch_size: B.
        points: N.
        samples: S.
        xyz: (B, N, 3) points.
        temp: (B, N) squared distance to the nearest picked point so far, large at the beginning;
            changed.
        out: (B, S) int32, written.

    Raises:
        InputError: If samples of no points are asked for.
    """
    if not points and samples:
        raise InputError(
            f'Expected points to take {samples} samples of, received none: leave out frames '
            f'without points.'
        )
    if not samples:
        return 1
    axes = [axis.contiguous() for axis in xyz.unbind(2)]
    picked = torch.zeros(batch_size, 1, dtype=torch.int64, device=xyz.device)
    out[:, 0] = 0
    for sample in range(1, samples):
        squares = square(*(axis - axis.gather(1, picked) for axis in axes))
        torch.minimum(temp, squares, out=temp)
        picked = temp.argmax(dim=1, keepdim=True)
        out[:, sample] = picked[:, 0]
    return 1


def stack_farthest_point_sampling_wrapper(
    xyz: Tensor, temp: Tensor, xyz_batch_cnt: Tensor, out: Tensor, samples: Tensor
) -> int:
    """As ``farthest_point_sampling_wrapper``, for frames of different lengths.

    Args:
        xyz: (N, 3) points of all frames.
        temp: (N,) as above.
        xyz_batch_cnt: (B,) how many points are each frame's.
        out: (S,) int32, written: indices among all frames' points.
        samples: (B,) how many samples each frame gets; S in all.
    """
    first = written = 0
    for points, count in zip(xyz_batch_cnt.tolist(), samples.tolist(), strict=True):
        part = slice(first, first + points)
        picked = out[written : written + count]
        farthest_point_sampling_wrapper(
            1, points, count, xyz[None, part], temp[None, part], picked[None]
        )
        picked += first
        first, written = first + points, written + count
    return 1
