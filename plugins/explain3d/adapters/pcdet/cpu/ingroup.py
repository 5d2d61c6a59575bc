"""Stand-in for ``ingroup_inds_cuda``, which DSVT numbers the voxels of its windows with."""

from __future__ import annotations

import torch
from torch import Tensor

from .stacked import rank


def forward(groups: Tensor, out: Tensor) -> None:
    """Numbers the elements of each group from 0, in their order.

    The compiled operator numbers them in the order in which its threads come.

    Args:
        groups: (N,) int64 group of each element, not negative.
        out: (N,) int64, written.
    """
    order = groups.argsort(stable=True)
    ascending = torch.unique_consecutive(groups[order], return_inverse=True)[1]
    out[order] = rank(ascending, len(groups)).to(out.dtype)
