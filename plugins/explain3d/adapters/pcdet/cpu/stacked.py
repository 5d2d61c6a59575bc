"""Sets of points of several frames, one after the other, and the pairs of those close together.

OpenPCDet's "stack" operators take all frames' points in one tensor of N1 + N2 + ... rows, with the
counts (N1, N2, ...) beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

# Pairs of points compared at a time: 16 MB a temporary in float32.
PAIRS_AT_ONCE = 1 << 22

# Centres that are compared with the points near them: few, so that these are few.
_CENTRES_AT_ONCE = 128

# Which of the offsets, given as dx, dy, dz of (M, N) each, are those of neighbours: (M, N) bool.
Test = Callable[[Tensor, Tensor, Tensor], Tensor]


def starts(counts: Tensor) -> Tensor:
    """(B,) int64 first row of each frame, from (B,) numbers of rows."""
    counts = counts.long()
    return counts.cumsum(0) - counts


def start_of_rows(counts: Tensor, other_counts: Tensor) -> Tensor:
    """(sum(counts),) int64: for each row, the first row of its frame in the other set."""
    return starts(other_counts).repeat_interleave(counts.long())


def frames(counts: Tensor, other_counts: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yields the rows of each frame in either set."""
    first = other_first = 0
    for rows, other_rows in zip(counts.tolist(), other_counts.tolist(), strict=True):
        yield slice(first, first + rows), slice(other_first, other_first + other_rows)
        first, other_first = first + rows, other_first + other_rows


def offsets(centres: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(M, N) x, y and z of ``points`` (N, 3) relative to ``centres`` (M, 3)."""
    x, y, z = (points[:, axis] - centres[:, axis, None] for axis in range(3))
    return x, y, z


def square(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The squared length of offsets."""
    return x * x + y * y + z * z


def neighbours(
    centres: Tensor,
    centre_counts: Tensor,
    points: Tensor,
    point_counts: Tensor,
    test: Test,
    reach: float,
    limit: int,
) -> tuple[Tensor, Tensor]:
    """Finds the points around each centre, in its own frame.

    Args:
        centres: (M, 3) centres of all frames.
        centre_counts: (B,) how many of them are each frame's.
        points: (N, 3) points of all frames.
        point_counts: (B,) how many of them are each frame's.
        test: Tells from the offsets which points are neighbours.
        reach: No neighbour is farther than this along x or along y; metres.
        limit: Keep the first so many points of each centre.

    Returns:
        (P,) int64 indices of the centres and (P,) of the points, among those of all frames, in
        ascending order of the centre, then of the point.
    """
    rows, columns = [], []
    for of_centres, of_points in frames(centre_counts, point_counts):
        for part in _compact(centres[of_centres], reach, len(points[of_points])):
            some = centres[of_centres][part]
            near = _in_reach(points[of_points], some, reach)
            row, column = test(*offsets(some, points[of_points][near])).nonzero(as_tuple=True)
            keep = rank(row, len(part)) < limit
            rows.append(part[row[keep]] + of_centres.start)
            columns.append(near[column[keep]] + of_points.start)
    empty = torch.zeros(0, dtype=torch.int64, device=centres.device)
    row, column = torch.cat([*rows, empty]), torch.cat([*columns, empty])
    order = row.argsort(stable=True)
    return row[order], column[order]


def _compact(centres: Tensor, reach: float, points: int) -> Sequence[Tensor]:
    """(m,) int64 indices of centres that lie together, of which few points are in reach."""
    if not len(centres):
        return ()
    cell = (centres[:, :2] / (2 * reach)).floor().nan_to_num().long()
    cell = cell - cell.amin(dim=0)
    order = (cell[:, 0] * (int(cell[:, 1].max()) + 1) + cell[:, 1]).argsort(stable=True)
    return order.split(max(1, min(_CENTRES_AT_ONCE, PAIRS_AT_ONCE // max(1, points))))


def _in_reach(points: Tensor, centres: Tensor, reach: float) -> Tensor:
    """(n,) int64 ascending indices of the points that may be in reach of one of the centres."""
    # A hair wider than asked for: rounding must not lose what `test` would accept.
    reach = reach * (1 + 1e-4) + 1e-4
    low, high = centres[:, :2].amin(dim=0) - reach, centres[:, :2].amax(dim=0) + reach
    return ((points[:, :2] >= low) & (points[:, :2] <= high)).all(dim=1).nonzero()[:, 0]


def rank(group: Tensor, groups: int) -> Tensor:
    """(P,) int64: how many elements of the same group come before, from (P,) ascending groups."""
    begin = starts(torch.bincount(group, minlength=groups))
    return torch.arange(len(group), device=group.device) - begin[group]


def write_first(idx: Tensor, rows: Tensor, values: Tensor) -> None:
    """Writes the neighbours of each row as OpenPCDet's queries do.

    Args:
        idx: (M, S) int32, changed: a row gets its values in order, the rest of it the first of
            them; where there is none, its first entry is -1 and the others are left.
        rows: (P,) int64 rows in ascending order, none more often than S times.
        values: (P,) values.
    """
    place = rank(rows, len(idx))
    values = values.to(idx.dtype)
    found = torch.zeros(len(idx), dtype=torch.bool, device=idx.device)
    found[rows] = True
    first = idx.new_full((len(idx),), -1)
    first[rows[place == 0]] = values[place == 0]
    idx[found] = first[found, None].expand(-1, idx.shape[1])
    idx[rows, place] = values
    idx[:, 0] = torch.where(found, idx[:, 0], -1)
