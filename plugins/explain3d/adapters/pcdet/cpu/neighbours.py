"""Stand-ins of ``pointnet2_stack_cuda`` that look for neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from .stacked import (
    PAIRS_AT_ONCE,
    frames,
    neighbours,
    offsets,
    rank,
    square,
    start_of_rows,
    write_first,
)


def ball_query_wrapper(
    batch_size: int,
    centres: int,
    radius: float,
    samples: int,
    new_xyz: Tensor,
    new_xyz_batch_cnt: Tensor,
    xyz: Tensor,
    xyz_batch_cnt: Tensor,
    idx: Tensor,
) -> int:
    """Finds the first points nearer than ``radius`` to each centre.

    Args:
        batch_size: B.
        centres: M.
        radius: Metres, itself not included.
        samples: S.
        new_xyz: (M, 3) centres.
        new_xyz_batch_cnt: (B,) how many of them are each frame's.
        xyz: (N, 3) points.
        xyz_batch_cnt: (B,) how many of them are each frame's.
        idx: (M, S) int32, written: indices within the frame in ascending order, filled up with the
            first; -1 first where there is none.
    """
    square_radius = torch.tensor(radius, dtype=xyz.dtype) ** 2
    rows, columns = neighbours(
        new_xyz,
        new_xyz_batch_cnt,
        xyz,
        xyz_batch_cnt,
        lambda x, y, z: square(x, y, z) < square_radius,
        radius,
        samples,
    )
    write_first(idx, rows, columns - start_of_rows(new_xyz_batch_cnt, xyz_batch_cnt)[rows])
    return 1


def voxel_query_wrapper(
    centres: int,
    depth: int,
    height: int,
    width: int,
    samples: int,
    radius: float,
    z_range: int,
    y_range: int,
    x_range: int,
    new_xyz: Tensor,
    xyz: Tensor,
    new_coords: Tensor,
    point_indices: Tensor,
    idx: Tensor,
) -> int:
    """Finds the first voxels around a centre's own that are within ``radius``.

    Args:
        centres: M.
        depth: Z, voxels of the grid.
        height: Y.
        width: X.
        samples: S.
        radius: Metres, included.
        z_range: Voxels to look at on either side.
        y_range: The same.
        x_range: The same.
        new_xyz: (M, 3) centres.
        xyz: (N, 3) places of the voxels that are occupied, of all frames.
        new_coords: (M, 4) frame, z, y, x of the centres' voxels.
        point_indices: (B, Z, Y, X) row of ``xyz`` of each voxel, negative where it is empty.
        idx: (M, S) int32, written: rows of ``xyz`` in ascending order of z, y, x, filled up with
            the first; -1 first where there is none.
    """
    reach = (z_range, y_range, x_range)
    shifts = torch.cartesian_prod(*(torch.arange(-r, r + 1) for r in reach)).to(new_coords)
    shifts = shifts.reshape(-1, 3)
    size = new_coords.new_tensor((depth, height, width))
    square_radius = torch.tensor(radius, dtype=xyz.dtype) ** 2
    rows, values = [], []
    step = max(1, PAIRS_AT_ONCE // (4 * len(shifts)))
    for first in range(0, len(new_coords), step):
        part = new_coords[first : first + step]
        voxel = part[:, None, 1:] + shifts
        row, shift = ((voxel >= 0) & (voxel < size)).all(dim=2).nonzero(as_tuple=True)
        z, y, x = voxel[row, shift].long().unbind(1)
        point = point_indices[part[row, 0].long(), z, y, x]
        row, point = row[point >= 0] + first, point[point >= 0].long()
        near = square(*(xyz[point] - new_xyz[row]).unbind(1)) <= square_radius
        rows.append(row[near])
        values.append(point[near])
    if rows:
        _write_limited(idx, torch.cat(rows), torch.cat(values))
    return 1


def three_nn_wrapper(
    unknown: Tensor,
    unknown_batch_cnt: Tensor,
    known: Tensor,
    known_batch_cnt: Tensor,
    dist2: Tensor,
    idx: Tensor,
) -> None:
    """Finds the three nearest known points of each unknown one, in its own frame.

    Args:
        unknown: (N, 3) points.
        unknown_batch_cnt: (B,) how many of them are each frame's.
        known: (M, 3) points.
        known_batch_cnt: (B,) how many of them are each frame's.
        dist2: (N, 3), written: squared distances, ascending; infinite for those that lack.
        idx: (N, 3) int32, written: indices among all frames' points, of equal ones the lowest
            first; the frame's first point for those that lack.
    """
    for of_unknown, of_known in frames(unknown_batch_cnt, known_batch_cnt):
        frame = known[of_known]
        step = max(1, PAIRS_AT_ONCE // max(1, len(frame)))
        for first in range(of_unknown.start, of_unknown.stop, step):
            part = slice(first, min(first + step, of_unknown.stop))
            squares = square(*offsets(unknown[part], frame))
            dist2[part], nearest = three_smallest(squares)
            idx[part] = nearest.clamp(min=0).to(idx.dtype) + of_known.start


def three_smallest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the three smallest of the last dimension, ascending, of equal ones the first first.

    Args:
        values: (..., L), L may be less than three; infinite ones do not count.

    Returns:
        (..., 3) values and (..., 3) int64 places; infinity and -1 for those that lack.
    """
    values = torch.nn.functional.pad(values, (0, max(0, 1 - values.shape[-1])), value=torch.inf)
    smallest, places = [], []
    for _ in range(3):
        least, place = values.min(dim=-1)
        smallest.append(least)
        places.append(torch.where(least < torch.inf, place, -1))
        values = values.scatter(-1, place[..., None], torch.inf)
    return torch.stack(smallest, dim=-1), torch.stack(places, dim=-1)


def _write_limited(idx: Tensor, rows: Tensor, values: Tensor) -> None:
    """``write_first`` for rows that may have more values than there is room for."""
    keep = rank(rows, len(idx)) < idx.shape[1]
    write_first(idx, rows[keep], values[keep])
