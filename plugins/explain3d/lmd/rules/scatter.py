"""From points to voxels: which point falls where is a selection, sums and means are linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ..call import Call
from ..registry import module_rule, named
from ..rows import Rows
from ..twin import plain


@module_rule(where=named('Voxelization', 'VoxelizationByGridShape'))
def _voxelization(call: Call, module: nn.Module, points: Tensor) -> Any:
    """Voxels (V, P, C) are copies of points (N, C); where there is none they are zero."""
    out = call.plain(plain(points))
    if isinstance(out, Tensor):  # Dynamic voxelisation: coordinates only.
        return out
    rows = call.rows(points)
    source = call.at_operating_point('points', lambda: _sources(call, plain(points), out[0]))
    picked = rows.stack[:, source.clamp_min(0)]
    rows = Rows(rows.ids, torch.where((source < 0)[..., None], 0, picked))
    return type(out)((call.carry(out[0], rows), *out[1:]))


def _sources(call: Call, points: Tensor, voxels: Tensor) -> Tensor:
    """Returns (V, P) int64, which point each place of a voxel holds; -1 for none.

    The points are voxelised once more with their numbers in a further column.
    """
    numbers = torch.arange(1, len(points) + 1, device=points.device, dtype=points.dtype)
    found = call.func(torch.cat([points, numbers[:, None]], 1))[0]
    source = found[..., -1].round().long() - 1
    copies = torch.where((source < 0)[..., None], 0, points[source.clamp_min(0)])
    if copies.shape != voxels.shape or not torch.equal(copies, voxels):
        raise NotApplicableError(
            f'The voxels of module {call.module!r} are not copies of its points, in the same order '
            'twice: expected a deterministic voxelisation '
            '(deterministic=True) of fewer points than the type of number counts exactly.'
        )
    return source


@module_rule(where=named('DynamicScatter'))
def _dynamic_scatter(call: Call, module: nn.Module, points: Tensor, coors: Tensor) -> Any:
    """Mean or maximum of the points (N, C) in each voxel; maxima keep the selected point."""
    out, voxels = call.plain(plain(points), coors)
    rows = call.rows(points)
    voxel = call.at_operating_point('voxel', lambda: _voxel_of_points(coors, voxels))
    reduce: Callable = _means if module.average_points else _maxima
    return call.carry(out, reduce(call, rows, voxel, plain(points), out)), voxels


def _voxel_of_points(coors: Tensor, voxels: Tensor) -> Tensor:
    """Returns (N,) which of the voxels (V, D) a point of coordinates (N, D) is in; -1 for none."""
    _, number = torch.cat([voxels, coors]).unique(dim=0, return_inverse=True)
    row = number.new_full((int(number.max()) + 1 if len(number) else 0,), -1)
    row[number[: len(voxels)]] = torch.arange(len(voxels), device=row.device)
    return row[number[len(voxels) :]]


def _means(call: Call, rows: Rows, voxel: Tensor, points: Tensor, out: Tensor) -> Rows:
    """Adds up each voxel's points in their order: on a GPU, ``index_add_`` does in any order."""
    if not len(rows.ids) or not len(points):
        return Rows(rows.ids, rows.stack.new_zeros(len(rows.ids), *out.shape))
    number = voxel + 1  # What is in no voxel comes first.
    count = number.new_zeros(len(out) + 1).index_add_(0, number, torch.ones_like(number))
    sorted_rows = rows.stack[:, number.argsort(stable=True)].transpose(0, 1).flatten(1)
    sums = torch.segment_reduce(sorted_rows, 'sum', lengths=count, axis=0, unsafe=True)[1:]
    stack = sums.unflatten(1, (len(rows.ids), -1)).transpose(0, 1)
    return Rows(rows.ids, stack / count[1:].clamp_min(1).to(points.dtype)[:, None])


def _maxima(call: Call, rows: Rows, voxel: Tensor, points: Tensor, out: Tensor) -> Rows:
    def first_largest() -> Tensor:
        """(V, C) number of the first point that holds the maximum."""
        inside = voxel >= 0
        where = voxel.clamp_min(0)[:, None].expand_as(points)
        numbers = torch.arange(len(points), device=voxel.device)[:, None].expand_as(points)
        held = (points == out[voxel.clamp_min(0)]) & inside[:, None]
        numbers = torch.where(held, numbers, len(points))
        chosen = numbers.new_full(out.shape, len(points))
        return chosen.scatter_reduce_(0, where, numbers, 'amin')

    chosen = call.at_operating_point('chosen', first_largest)
    stack = rows.stack.gather(1, chosen.expand(len(rows.ids), *chosen.shape))
    return Rows(rows.ids, stack)
