"""Hard voxelisation of small clouds, without a table over the whole grid.

The hosts' CPU operators fill a table of every cell of the grid, mmcv's at each call, which for the
part of a frame around one object takes longer than the network. What is here gives the same
voxels, in the same order (of their first points), with the same points in them, and no cap on their
number, which would couple the objects of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hard_voxels(
    points: Tensor,
    voxel_size: tuple[float, ...],
    limits: tuple[float, ...],
    max_points: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Collects points by voxels, in the order in which they come.

    Args:
        points: (N, P) x, y, z, ..., metres; those outside of the limits are dropped.
        voxel_size: x, y, z in metres.
        limits: Lower and upper corner of the grid, x, y, z each, metres.
        max_points: Points that a voxel holds; later ones are dropped.

    Returns:
        (M, max_points, P) points, zeros in empty places; (M, 3) int32 z, y, x; (M,) int32 counts.
    """
    low, high = points.new_tensor(limits[:3]), points.new_tensor(limits[3:])
    size = points.new_tensor(voxel_size)
    shape = ((high - low) / size).round().long()
    cells = ((points[:, :3] - low) / size).floor().long()
    inside = ((cells >= 0) & (cells < shape)).all(dim=1)
    points, cells = points[inside], cells[inside]
    N = len(points)
    key = (cells[:, 2] * shape[1] + cells[:, 1]) * shape[0] + cells[:, 0]
    _, order = key.sort(stable=True)
    place = torch.arange(N, device=points.device)
    begins = torch.ones(N, dtype=torch.bool, device=points.device)
    begins[1:] = key[order][1:] != key[order][:-1]
    # Rows of a voxel are sorted by their order in the cloud: the first one is its first point.
    first = order[begins]
    number = begins.cumsum(dim=0) - 1
    slot = place - place[begins][number]
    rank = torch.empty_like(first)
    rank[first.argsort()] = torch.arange(len(first), device=points.device)
    kept = slot < max_points
    rows, columns = rank[number[kept]], slot[kept]
    voxels = points.new_zeros(len(first), max_points, points.shape[1])
    voxels[rows, columns] = points[order[kept]]
    counts = torch.bincount(rows, minlength=len(first)).int()
    coords = cells[first].flip(1).int()[rank.argsort()]
    return voxels, coords, counts
