"""Stand-ins of ``pointnet2_stack_cuda`` for PV-RCNN++'s vector pooling.

Neighbours are taken in ascending order of the point, centre after centre. The compiled operator
writes the centres in the order in which its threads come; what OpenPCDet makes of it does not
depend on that order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .neighbours import three_smallest
from .stacked import PAIRS_AT_ONCE, Test, neighbours, rank, square

_BALL = 1

# The compiled operator has room for so many neighbours of a centre, and drops the rest.
_MOST_NEIGHBOURS = 1000


def query_stacked_local_neighbor_idxs_wrapper_stack(
    support_xyz: Tensor,
    xyz_batch_cnt: Tensor,
    new_xyz: Tensor,
    new_xyz_batch_cnt: Tensor,
    stack_neighbor_idxs: Tensor,
    start_len: Tensor,
    cumsum: Tensor,
    average_length: int,
    distance: float,
    samples: int,
    neighbor_type: int,
) -> int:
    """Lists the points around each centre, one list after the other.

    Args:
        support_xyz: (N, 3) points.
        xyz_batch_cnt: (B,) how many of them are each frame's.
        new_xyz: (M, 3) centres.
        new_xyz_batch_cnt: (B,) how many of them are each frame's.
        stack_neighbor_idxs: (M * average_length,) int32, written as far as it goes: the lists, of
            indices among all frames' points.
        start_len: (M, 2) int32, written: where a centre's list begins, and its length.
        cumsum: (1,) int32, the length of all lists together is added to it.
        average_length: Entries there is room for, by centre.
        distance: Metres, included.
        samples: Longest list; no limit of its own where it is not positive.
        neighbor_type: 1 for a ball about the centre, else a cube.
    """
    limit = min(samples, _MOST_NEIGHBOURS) if samples > 0 else _MOST_NEIGHBOURS
    rows, columns = neighbours(
        new_xyz,
        new_xyz_batch_cnt,
        support_xyz,
        xyz_batch_cnt,
        _within(distance, neighbor_type, support_xyz),
        distance,
        limit,
    )
    lengths = torch.bincount(rows, minlength=len(new_xyz))
    start_len[:, 0] = lengths.cumsum(0) - lengths + cumsum[0]
    start_len[:, 1] = lengths
    begin = int(cumsum[0])
    room = max(0, average_length * len(new_xyz) - begin)
    written = columns[:room].to(stack_neighbor_idxs.dtype)
    stack_neighbor_idxs[begin : begin + len(written)] = written
    cumsum += len(columns)
    return 0


def query_three_nn_by_stacked_local_idxs_wrapper_stack(
    support_xyz: Tensor,
    new_xyz: Tensor,
    new_xyz_grid_centers: Tensor,
    new_xyz_grid_idxs: Tensor,
    new_xyz_grid_dist2: Tensor,
    stack_neighbor_idxs: Tensor,
    start_len: Tensor,
    centres: int,
    grids: int,
) -> int:
    """Finds the three points of a centre's list nearest to each of its grid cells.

    Args:
        support_xyz: (N, 3) points.
        new_xyz: (M, 3) centres, not used.
        new_xyz_grid_centers: (M, G, 3) centres of the cells.
        new_xyz_grid_idxs: (M, G, 3) int32, written: indices of the points, nearest first; the
            nearest again for those that lack, -1 where the list is empty.
        new_xyz_grid_dist2: (M, G, 3), written: their squared distances, infinite where the list is
            empty.
        stack_neighbor_idxs: Lists of points, as written by the function above.
        start_len: (M, 2) where a centre's list begins, and its length.
        centres: M.
        grids: G.
    """
    begin, length = start_len.long().unbind(1)
    longest = max(1, int(length.max()) if len(length) else 1)
    column = torch.arange(longest, device=begin.device)
    lists = torch.cat([stack_neighbor_idxs, stack_neighbor_idxs.new_zeros(1)]).long()
    step = max(1, PAIRS_AT_ONCE // (longest * max(1, grids)))
    for first in range(0, centres, step):
        part = slice(first, min(first + step, centres))
        valid = column < length[part, None]
        points = lists[torch.where(valid, begin[part, None] + column, len(lists) - 1)]
        offset = support_xyz[points][:, None] - new_xyz_grid_centers[part].view(-1, grids, 1, 3)
        squares = torch.where(valid[:, None], square(*offset.unbind(3)), torch.inf)
        dist2, place = three_smallest(squares)
        dist2 = torch.where(place < 0, dist2[..., :1], dist2)
        place = torch.where(place < 0, place[..., :1], place)
        found = points.gather(1, place.clamp(min=0).flatten(1)).view_as(place)
        new_xyz_grid_dist2[part] = dist2.view_as(new_xyz_grid_dist2[part])
        found = torch.where(place < 0, -1, found).to(new_xyz_grid_idxs.dtype)
        new_xyz_grid_idxs[part] = found.view_as(new_xyz_grid_idxs[part])
    return 0


def vector_pool_wrapper(
    support_xyz: Tensor,
    xyz_batch_cnt: Tensor,
    support_features: Tensor,
    new_xyz: Tensor,
    new_xyz_batch_cnt: Tensor,
    new_features: Tensor,
    new_local_xyz: Tensor,
    point_cnt_of_grid: Tensor,
    grouped_idxs: Tensor,
    grids_x: int,
    grids_y: int,
    grids_z: int,
    distance: float,
    use_xyz: bool,
    most_points: int,
    samples: int,
    neighbor_type: int,
    pooling_type: int,
) -> int:
    """Pools the points around each centre into the cells of a grid about it.

    A feature's channel c goes to channel c modulo E of its cell. Where all points are pooled they
    are summed; where one is chosen, the last of these channels stands.

    Args:
        support_xyz: (N, 3) points.
        xyz_batch_cnt: (B,) how many of them are each frame's.
        support_features: (N, C) their features.
        new_xyz: (M, 3) centres.
        new_xyz_batch_cnt: (B,) how many of them are each frame's.
        new_features: (M, G * E), zero; written: sums of features in each of the G cells.
        new_local_xyz: (M, G * 3), zero; written if ``use_xyz``: sums of places relative to the
            centre.
        point_cnt_of_grid: (M, G) int32, zero; written: points in each cell.
        grouped_idxs: (P, 3) int32, written as far as it goes: point, centre, cell.
        grids_x: Cells of the grid along x; G is the product of the three.
        grids_y: The same along y.
        grids_z: The same along z.
        distance: Half the side of the grid, metres, included.
        use_xyz: Whether to write ``new_local_xyz``.
        most_points: P.
        samples: Most points that a centre gets; no limit where it is not positive.
        neighbor_type: 1 for a ball about the centre, else a cube.
        pooling_type: 0 for all points, 1 for the first point of each cell.

    Returns:
        How many entries ``grouped_idxs`` needs; if more than P, the caller makes it larger.
    """
    grids = grids_x * grids_y * grids_z
    every = pooling_type == 0
    rows, columns = neighbours(
        new_xyz,
        new_xyz_batch_cnt,
        support_xyz,
        xyz_batch_cnt,
        _within(distance, neighbor_type, support_xyz),
        distance,
        samples if every and samples > 0 else len(support_xyz),
    )
    local = support_xyz[columns] - new_xyz[rows]
    number = local.new_tensor((grids_x, grids_y, grids_z))
    cell_size = torch.tensor(distance, dtype=local.dtype) * 2 / number
    x, y, z = ((local + distance) / cell_size).floor().long().unbind(1)
    # A point on the far face of the grid counts beyond it: only the combined index is clamped.
    cell = (x * grids_y * grids_z + y * grids_z + z).clamp(0, grids - 1)
    if not every:
        keep = _first_of_cells(rows, rows * grids + cell, len(new_xyz), grids, samples)
        rows, columns, cell, local = rows[keep], columns[keep], cell[keep], local[keep]

    place = rows * grids + cell
    each = new_features.shape[1] // grids
    parts = support_features.view(len(support_features), -1, each)
    values = (parts.sum(dim=1) if every else parts[:, -1])[columns]
    new_features.view(-1, each).index_add_(0, place, values)
    if use_xyz:
        new_local_xyz.view(-1, 3).index_add_(0, place, local)
    point_cnt_of_grid.view(-1).index_add_(0, place, torch.ones_like(place).to(point_cnt_of_grid))
    grouped = torch.stack([columns, rows, cell], dim=1)[:most_points]
    grouped_idxs[: len(grouped)] = grouped.to(grouped_idxs.dtype)
    return len(rows)


def vector_pool_grad_wrapper(
    grad_new_features: Tensor,
    point_cnt_of_grid: Tensor,
    grouped_idxs: Tensor,
    grad_support_features: Tensor,
) -> int:
    """Adds the gradient of the cells' *mean* features to ``grad_support_features``.

    Args:
        grad_new_features: (M, G * E) gradient of the means, which the caller has made of the sums.
        point_cnt_of_grid: (M, G) points in each cell.
        grouped_idxs: (P, 3) point, centre, cell.
        grad_support_features: (N, C), added to; all channels of one place get the same.
    """
    column, row, cell = grouped_idxs.long().unbind(1)
    grids = point_cnt_of_grid.shape[1]
    grad = grad_new_features.view(len(grad_new_features), grids, -1)[row, cell]
    grad = grad / point_cnt_of_grid[row, cell].clamp(min=1)[:, None]
    repeats = grad_support_features.shape[1] // grad.shape[1]
    grad_support_features.index_add_(0, column, grad.repeat(1, repeats))
    return 1


def _within(distance: float, neighbor_type: int, like: Tensor) -> Test:
    limit = torch.tensor(distance, dtype=like.dtype)
    if neighbor_type == _BALL:
        return lambda x, y, z: square(x, y, z) <= limit**2
    return lambda x, y, z: (x.abs() <= limit) & (y.abs() <= limit) & (z.abs() <= limit)


def _first_of_cells(rows: Tensor, places: Tensor, centres: int, grids: int, samples: int) -> Tensor:
    """Indices of the first point of each cell, and of no more than ``samples`` cells a centre."""
    order = places.argsort(stable=True)
    first = order[rank(places[order], centres * grids) == 0].sort().values
    if samples > 0:
        first = first[rank(rows[first], centres) < samples]
    return first
