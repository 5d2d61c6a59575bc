"""From values per voxel to values per point (Eq. 8 to 10 of FFAM).

The search for neighbours does not depend on the map: it is done once a frame, and any number of
maps is then carried to the points by a gather and a weighted sum over at most k neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from numbers import Integral

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from .errors import InputError, UnknownNameError
from .normalize import full_precision, require_finite
from .structures import LayerFeatures, VoxelGeometry
from .transfer import constant

MODES = ('manhattan', 'gaussian', 'reference')

#: Rows that are searched, and values that are gathered, at a time: a bound on memory.
SEARCH_CHUNK = 1 << 17
GATHER_CHUNK = 1 << 22
#: Maps come in multiples of so many.
LANES = 16

#: Distances to voxel centres are compared in steps of this part of the voxel's shortest edge, so
#: that a tie is a tie on every device.
TIE_STEP = 1e-6

#: The weight of an empty slot in the released code: exp(-d^2 / 2) at its initial d^2 of 1 m^2.
EMPTY_SLOT_WEIGHT = math.exp(-0.5)


@dataclass(frozen=True, eq=False)
class NeighbourTable:
    """The neighbours of each point and their weights in Eq. 10 of FFAM.

    Attributes:
        index: (N, k') int64 row of each neighbour in the layer's features; 0 in an empty slot.
        weight: (N, k') float64 weights; 0 in an empty slot.
        inside: (N,) whether the point takes part; all do under ``'manhattan'``.
    """

    index: Tensor
    weight: Tensor
    inside: Tensor

    def apply(self, maps: Tensor) -> Tensor:
        """Carries maps to the points (Eq. 10 of FFAM).

        Each sum runs over its slots in order and nothing is scattered, so that the result does not
        depend on the number of threads or of maps; devices agree to rounding.

        Args:
            maps: (..., M) finite values per voxel.

        Returns:
            (..., N) values per point, 0 where a point has no neighbour.

        Raises:
            InputError: If a value is NaN or infinite: as 0 * NaN it would reach all points.
        """
        require_finite(maps, 'map')
        return self.carry(maps)

    def carry(self, maps: Tensor) -> Tensor:
        """As ``apply``, for maps that are known to be finite: it never waits for the device.

        Args:
            maps: (..., M) finite values per voxel.

        Returns:
            (..., N) values per point, 0 where a point has no neighbour.
        """
        N = len(self.index)
        rows = maps.reshape(math.prod(maps.shape[:-1]), maps.shape[-1])
        out = maps.new_zeros(rows.shape[0], N)
        weight = self.weight.to(maps.dtype)
        if maps.shape[-1] == 0:
            return out.reshape(*maps.shape[:-1], N)
        step = max(1, GATHER_CHUNK // max(1, N))
        for start in range(0, rows.shape[0], step):
            # Voxels first: a neighbour's values for all maps lie side by side. Whole registers of
            # them: what is left over would be added in another way, and round differently.
            part = rows[start : start + step]
            values = pad(part.T, (0, -len(part) % LANES)).contiguous()
            total = embedding_bag(self.index, values, per_sample_weights=weight, mode='sum')
            out[start : start + step] = total.T[: len(part)]
        return out.reshape(*maps.shape[:-1], N)


#: Standard deviation of ``'gaussian'``, in cells of the layer.
BANDWIDTH = 0.6


def find_neighbours(
    points: Tensor,
    layer: LayerFeatures,
    radius: int = 2,
    k: int = 16,
    mode: str = 'manhattan',
    bandwidth: float = BANDWIDTH,
) -> NeighbourTable:
    """Finds for each point the occupied voxels around its cell (Eq. 8 to 10 of FFAM).

    ``'manhattan'`` is what the equations say: the neighbours are the occupied voxels whose integer
    Manhattan distance d to the point's cell is at most ``radius``. Of more than ``k``, the nearest
    by d are kept; ties go to the voxel whose centre is nearer to the point in metres, then to the
    smaller (z, y, x). Weights are exp(-d^2 / 2), divided by their sum over the neighbours found.

    ``'gaussian'`` has the same neighbours with weights that depend on where in its cell the point
    is: exp(-d^2 / (2 bandwidth^2)), d in cells from the point to the voxel's centre (each axis by
    its own edge), divided by their sum. Points of one cell then differ, which matters at layers of
    a large stride.

    ``'reference'`` is what the released code of FFAM does: all cells of a cube of ``2 radius + 1``
    cells, of which the first ``k`` occupied ones in (z, y, x) order are kept; weights exp(-d^2 / 2)
    with d in metres to a voxel centre taken at (i + 0.5) strides; each of the ``k`` slots that is
    left empty stays in the denominator with the weight exp(-1 / 2); points whose cell is outside
    the grid have no neighbours.

    In a bird's-eye-view layer (one cell in z) a point above or below the cell counts as in it.

    Args:
        points: (N, >= 3) x, y, z, ..., metres, LiDAR frame.
        layer: The layer; M coordinates, each once.
        radius: Largest distance of a neighbour, in cells of the layer.
        k: Largest number of neighbours of a point.
        mode: ``'manhattan'``, ``'gaussian'`` or ``'reference'``.
        bandwidth: Standard deviation of ``'gaussian'``, in cells.

    Returns:
        The table, on the device of the layer.

    Raises:
        InputError: If a point is not finite, coordinates repeat or lie outside the grid, or
            ``radius`` < 0, ``k`` < 1 or ``bandwidth`` <= 0.
        UnknownNameError: If the mode is unknown.
    """
    _check(points, layer, radius, k, mode, bandwidth)
    points = full_precision(points[:, :3].to(layer.coords.device))
    geometry = layer.geometry.naive() if mode == 'reference' else layer.geometry
    grid = _Grid(layer, geometry, radius)
    _check_values(points, layer, grid)
    offsets = _offsets(radius, mode, grid.flat, points.device)
    cells, inside = grid.cells(points)
    search = _search_reference if mode == 'reference' else _search_manhattan
    parts = [
        search(grid, points[rows], cells[rows], offsets, k)
        for rows in _chunks(len(cells) if len(layer.coords) else 0)
    ]
    index, weight = _joined(parts, cells.new_zeros(len(cells), min(k, len(offsets))))
    if mode == 'reference':
        # Its points come from a voxel generator, which drops those outside the grid.
        return NeighbourTable(index, weight * inside[:, None], inside)
    if mode == 'gaussian':
        weight = _gaussian(grid, points, index, weight > 0, bandwidth)
    return NeighbourTable(index, weight, torch.ones_like(inside))


class _Grid:
    """Look-up of occupied cells by one integer key a cell.

    A point's cell is clamped to just where it has no neighbour any more, ``radius + 1`` outside,
    and the grid is padded so that the neighbours of such a cell still have keys of their own.
    """

    def __init__(self, layer: LayerFeatures, geometry: VoxelGeometry, radius: int) -> None:
        device = layer.coords.device
        self.flat = layer.spatial_shape[0] == 1
        self.edge = min(geometry.voxel_size)
        self._size = constant(geometry.voxel_size, device, torch.float64)
        self.centers = geometry.centers(layer.coords, torch.float64)
        self._geometry = geometry
        self.radius = radius
        self._shape = constant(tuple(layer.spatial_shape), device)
        self._margin = radius + 1
        self._padding = 2 * radius + 1
        _, H, W = (size + 2 * self._padding for size in layer.spatial_shape)
        self._strides = constant((H * W, W, 1), device)
        self._keys, self._rows = self.key(layer.coords.long()).sort()

    def repeated(self) -> Tensor:
        """Returns whether a voxel comes more than once, as a tensor of one value."""
        return (self._keys.diff() == 0).any()

    def cells(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (N, 3) z, y, x cells, clamped, and (N,) whether they lie in the grid."""
        cells = self._geometry.cells(points)
        if self.flat:
            cells[:, 0] = 0
        inside = ((cells >= 0) & (cells < self._shape)).all(dim=1)
        return cells.clamp(min=-self._margin).minimum(self._shape - 1 + self._margin), inside

    def key(self, cells: Tensor) -> Tensor:
        """Returns one integer for each cell (..., 3)."""
        return ((cells + self._padding) * self._strides).sum(dim=-1)

    def occupied(self, cells: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Looks for voxels around cells; points that share a cell share the search.

        How many different cells there are is the one thing that the host waits for.

        Returns:
            (U, B) row of the voxel at each of B offsets from U different cells, (U, B) whether
            there is one, and (n,) which of the U each of the n cells is.
        """
        keys, inverse = self.key(cells).unique(return_inverse=True)
        wanted = keys[:, None] + (offsets * self._strides).sum(dim=-1)
        place = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        return self._rows[place], self._keys[place] == wanted, inverse

    def distance(self, points: Tensor, rows: Tensor) -> Tensor:
        """Returns (n, B) metres from each point to the centres of (n, B) voxels, in float64."""
        return (points.double()[:, None] - self.centers[rows]).norm(dim=-1)

    def squares(self, points: Tensor, cells: Tensor, offsets: Tensor) -> Tensor:
        """Returns (B, n) squared metres from each point to the cells at B offsets from its own.

        In a bird's-eye-view layer the height counts for nothing: it is common to all.
        """
        span = torch.arange(-self.radius, self.radius + 1, device=cells.device)[:, None]
        total = 0
        for axis in range(2 if self.flat else 3):
            column = 2 - axis
            origin, size = self._geometry.origin[axis], self._geometry.voxel_size[axis]
            center = (cells[:, column] + span + 0.5).double() * size + origin
            square = (points[:, axis].double() - center).square_()
            total = total + square[offsets[:, column] + self.radius]
        return total

    def squared_cells(self, points: Tensor, rows: Tensor) -> Tensor:
        """Returns (n, B) squared distances to voxel centres, each axis in its own edges."""
        steps = (points.double()[:, None] - self.centers[rows]) / self._size
        return steps[..., : 2 if self.flat else 3].square().sum(dim=-1)


def _search_manhattan(
    grid: _Grid, points: Tensor, cells: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    rings = _rings(grid)
    rows, found, inverse = grid.occupied(cells, offsets)
    index, column = _first(rows, found, k)
    # Computed on the host: devices may differ in the last digit of exp.
    kernel = [math.exp(-(d**2) / 2) for d, ring in enumerate(rings) for _ in ring]
    kernel = constant(tuple(kernel), cells.device, torch.float64)
    weight = _normalised(torch.where(column >= 0, kernel[column], 0))
    index, weight = index[inverse], weight[inverse]
    # Only where there are more than k candidates does it matter where in its cell a point is, and
    # only for those as far as the k-th: the weights are the same whichever of them are taken.
    steps = offsets.abs().sum(dim=1)
    crowded = found.sum(dim=1) > k
    farthest = torch.where(crowded, steps[column[:, -1]], -1)
    nearer = (found & (steps < farthest[:, None])).sum(dim=1)
    # There are fewer than k nearer ones. Kind 0 is all others.
    kinds = torch.where(crowded, farthest * k + nearer + 1, 0)[inverse]
    for kind, these in _by_kind(kinds, len(rings) * k + 1):
        far, near = divmod(kind - 1, k)
        ring = slice(rings[far].start, rings[far].stop)
        cell = inverse[these]
        metric = grid.squares(points[these], cells[these], offsets[ring]).sqrt_()
        metric = (metric / (grid.edge * TIE_STEP)).round_().long().T
        order = torch.where(found[:, ring][cell], metric, _LAST).sort(dim=1, stable=True).indices
        index[these, near:] = rows[:, ring][cell].gather(1, order[:, : k - near])
    return index, weight


def _rings(grid: _Grid) -> list[range]:
    """Returns the places, in ``_offsets``, of each Manhattan distance from 0 on."""
    distances = [sum(map(abs, offset)) for offset in _ball(grid.radius, grid.flat)]
    starts = [distances.index(d) for d in range(grid.radius + 1)]
    return [range(*ends) for ends in zip(starts, [*starts[1:], len(distances)], strict=True)]


def _by_kind(kinds: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """Yields each kind above 0 that there is and the places of its points, in one wait.

    Args:
        kinds: (n,) int64 kinds of points, below ``count``.
        count: Number of kinds.
    """
    sizes = torch.zeros(count, dtype=torch.long, device=kinds.device)
    sizes = sizes.index_add_(0, kinds, torch.ones_like(kinds)).tolist()
    if sizes[0] == len(kinds):
        return
    places = kinds.argsort(stable=True).split(sizes)
    yield from ((kind, places[kind]) for kind in range(1, count) if sizes[kind])


def _gaussian(
    grid: _Grid, points: Tensor, index: Tensor, filled: Tensor, bandwidth: float
) -> Tensor:
    weight = torch.zeros(index.shape, dtype=torch.float64, device=index.device)
    for rows in _chunks(len(index) if len(grid.centers) else 0):
        square = grid.squared_cells(points[rows], index[rows])
        square = square.masked_fill(~filled[rows], torch.inf)
        # Relative to the nearest one, or a small bandwidth would leave 0 / 0 far from all centres.
        nearest = square.amin(dim=1, keepdim=True)
        excess = torch.where(filled[rows], square - nearest, torch.inf)
        weight[rows] = _normalised((-excess / (2 * bandwidth**2)).exp())
    return weight


def _search_reference(
    grid: _Grid, points: Tensor, cells: Tensor, offsets: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    rows, found, inverse = grid.occupied(cells, offsets)
    index, column = _first(rows, found, k)
    index, filled = index[inverse], column[inverse] >= 0
    weight = (-grid.distance(points, index).square() / 2).exp()
    unused = (k - index.shape[1]) + (~filled).sum(dim=1)
    return index, _normalised(weight * filled, unused * EMPTY_SLOT_WEIGHT)


_LAST = torch.iinfo(torch.int64).max


def _first(rows: Tensor, found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Moves the first k voxels found to the front.

    Returns:
        (U, k') rows, 0 in empty slots, and (U, k') the columns they come from, -1 in empty slots.
    """
    slots = min(k, found.shape[1])
    place = found.cumsum(dim=1) - 1
    # All others go to a slot more, which is left out.
    place = torch.where(found & (place < slots), place, slots)
    origin = torch.full((len(rows), slots + 1), -1, device=rows.device)
    columns = torch.arange(found.shape[1], device=rows.device).expand_as(place)
    origin = origin.scatter_(1, place, columns)[:, :slots]
    index = torch.where(origin < 0, 0, rows.gather(1, origin.clamp(min=0)))
    return index, origin


def _normalised(weight: Tensor, total: Tensor | float = 0.0) -> Tensor:
    """Divides weights by ``total`` plus their sum over the slots, taken in order."""
    for slot in weight.unbind(dim=1):
        total = total + slot
    return torch.where(weight > 0, weight / total[:, None], 0)


def _offsets(radius: int, mode: str, flat: bool, device: torch.device) -> Tensor:
    """Returns (B, 3) z, y, x: the Manhattan ball by distance, or the cube; then by z, y, x."""
    offsets = _cube(radius, flat) if mode == 'reference' else _ball(radius, flat)
    return constant(tuple(offsets), device)


def _cube(radius: int, flat: bool) -> list[tuple[int, int, int]]:
    span = range(-radius, radius + 1)
    return list(product((0,) if flat else span, span, span))


def _ball(radius: int, flat: bool) -> list[tuple[int, int, int]]:
    ball = [offset for offset in _cube(radius, flat) if sum(map(abs, offset)) <= radius]
    return sorted(ball, key=lambda offset: sum(map(abs, offset)))


def _joined(parts: list[tuple[Tensor, Tensor]], nothing: Tensor) -> tuple[Tensor, Tensor]:
    """Puts chunks together; a table is large, and most frames are one chunk."""
    if not parts:
        return nothing, nothing.double()
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, start + SEARCH_CHUNK) for start in range(0, size, SEARCH_CHUNK))


def _check(
    points: Tensor, layer: LayerFeatures, radius: int, k: int, mode: str, bandwidth: float
) -> None:
    if mode not in MODES:
        raise UnknownNameError(f'Unknown upsampling {mode!r}: expected one of {list(MODES)}.')
    whole = isinstance(radius, Integral) and isinstance(k, Integral)
    if not whole or radius < 0 or k < 1:
        raise InputError(
            f'Expected whole numbers radius >= 0 and k >= 1, received {radius} and {k}.'
        )
    if not 0 < bandwidth < math.inf:
        raise InputError(f'Expected a bandwidth > 0, finite, received {bandwidth}.')
    if points.ndim != 2 or points.shape[1] < 3:
        raise InputError(
            f'Expected points of shape (N, 3 or more), received {tuple(points.shape)}.'
        )
    coords = layer.coords
    if coords.ndim != 2 or coords.shape[1] != 3:
        raise InputError(
            f'Expected voxel coordinates z, y, x of shape (M, 3), received {tuple(coords.shape)}.'
        )


def _check_values(points: Tensor, layer: LayerFeatures, grid: _Grid) -> None:
    """Raises what is wrong with values; asks the device once for all."""
    coords, shape = layer.coords, constant(tuple(layer.spatial_shape), layer.coords.device)
    outside = ((coords < 0) | (coords >= shape)).any()
    endless = ~torch.isfinite(points).all()
    endless, outside, repeated = torch.stack([endless, outside, grid.repeated()]).tolist()
    if endless:
        require_finite(points, 'point coordinate')
    if outside:
        raise InputError(
            f'Expected voxels inside the grid {tuple(layer.spatial_shape)} (z, y, x), received '
            f'coordinates from {coords.amin(0).tolist()} to {coords.amax(0).tolist()}: check the '
            f'order of the axes.'
        )
    if repeated:
        raise InputError(
            'Expected every voxel once, received repeated coordinates: pass the rows of one '
            'frame, not of a batch.'
        )
