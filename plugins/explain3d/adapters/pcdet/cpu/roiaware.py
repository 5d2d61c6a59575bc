"""Stand-ins of ``roiaware_pool3d_cuda`` that pool points into the voxels of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from .in_boxes import GPU_MARGIN, inside_by_boxes
from .stacked import rank

_MAX = 0


def forward(
    rois: Tensor,
    points: Tensor,
    features: Tensor,
    argmax: Tensor,
    points_of_voxels: Tensor,
    pooled: Tensor,
    method: int,
) -> int:
    """Pools the features of the points in each voxel of each box.

    Args:
        rois: (K, 7) boxes, each divided into X * Y * Z voxels along its own axes.
        points: (N, 3) points.
        features: (N, C) their features.
        argmax: (K, X, Y, Z, C) int32, written for maxima: the first point that attains each, -1
            where there is none.
        points_of_voxels: (K, X, Y, Z, 1 + S) int32, zero; written: how many points a voxel has,
            then their indices in ascending order; those after the first S are dropped.
        pooled: (K, X, Y, Z, C), zero; written where there are points.
        method: 0 for the maximum, 1 for the mean.
    """
    cells = tuple(points_of_voxels.shape[1:4])
    voxel, point = _pairs(rois, points, cells)
    lists = points_of_voxels.view(-1, points_of_voxels.shape[-1])
    place = rank(voxel, len(lists))
    keep = place < lists.shape[1] - 1
    voxel, point, place = voxel[keep], point[keep], place[keep]
    lists[voxel, place + 1] = point.to(lists.dtype)
    lists[:, 0] = torch.bincount(voxel, minlength=len(lists)).to(lists.dtype)

    values = features[point]
    index = voxel[:, None].expand_as(values)
    flat = pooled.view(-1, pooled.shape[-1])
    if method == _MAX:
        flat.scatter_reduce_(0, index, values, 'amax', include_self=False)
        nobody = torch.full_like(flat, len(points), dtype=torch.int64)
        candidate = torch.where(values == flat[voxel], point[:, None], len(points))
        first = nobody.scatter_reduce_(0, index, candidate, 'amin')
        argmax.view_as(flat).copy_(torch.where(first < len(points), first, -1))
    else:
        flat.scatter_reduce_(0, index, values, 'mean', include_self=False)
    return 1


def backward(
    points_of_voxels: Tensor, argmax: Tensor, grad_out: Tensor, grad_in: Tensor, method: int
) -> int:
    """Adds the gradient of ``forward`` with respect to the features to ``grad_in``.

    Args:
        points_of_voxels: As written by ``forward``.
        argmax: The same.
        grad_out: (K, X, Y, Z, C) gradient of the pooled features.
        grad_in: (N, C), added to.
        method: 0 for the maximum, 1 for the mean.
    """
    grad = grad_out.reshape(-1, grad_out.shape[-1])
    if method == _MAX:
        index = argmax.view_as(grad).long()
        grad_in.scatter_add_(0, index.clamp(min=0), torch.where(index >= 0, grad, 0.0))
        return 1
    lists = points_of_voxels.view(-1, points_of_voxels.shape[-1])
    column = torch.arange(lists.shape[1] - 1, device=lists.device)
    voxel, place = (column < lists[:, :1]).nonzero(as_tuple=True)
    grad_in.index_add_(0, lists[voxel, place + 1].long(), grad[voxel] / lists[voxel, :1])
    return 1


def _pairs(rois: Tensor, points: Tensor, cells: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Voxels of all boxes, numbered through, and the points inside; ascending in both."""
    voxels, indices = [], []
    number = points.new_tensor(cells)
    x_cells, y_cells, z_cells = cells
    for first, inside, local in inside_by_boxes(rois, points, GPU_MARGIN):
        box, point = inside.nonzero(as_tuple=True)
        size = rois[box + first, 3:6]
        cell = ((local[box, point] + size / 2) / (size / number)).long().clamp(min=0)
        x, y, z = torch.minimum(cell, number.long() - 1).unbind(1)
        voxels.append((((box + first) * x_cells + x) * y_cells + y) * z_cells + z)
        indices.append(point)
    empty = torch.zeros(0, dtype=torch.int64, device=points.device)
    voxel, point = torch.cat([*voxels, empty]), torch.cat([*indices, empty])
    order = voxel.argsort(stable=True)
    return voxel[order], point[order]
