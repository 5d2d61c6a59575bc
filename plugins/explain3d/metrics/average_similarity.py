"""How alike two average maps are (4.3 of FFAM), and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from .average_protocol import AverageProtocol, Grid
from .average_stack import Stack

#: Resamples that are computed at a time: a bound on memory.
_DRAWS_AT_ONCE = 128
#: Correlations closer to 1 than this have no useful value on Fisher's scale.
_LARGEST = 1 - 1e-12


@dataclass(frozen=True)
class Similarity:
    """The correlation of two average maps over their common cells.

    Attributes:
        value: Pearson's correlation; NaN with fewer than three common cells or a constant map.
        low: Lower end of its interval.
        high: Upper end.
        cells: Common cells.
        counts: Detections of either map.
        among: Mean correlation of two disjoint random parts of the first set, one of them with as
            many detections as the second set (at most half): what noise leaves of a perfect one.
        among_low: Lower end of the central part of those.
        among_high: Upper end.
        level: Probability that the intervals are made for.
    """

    value: float
    low: float
    high: float
    cells: int
    counts: tuple[int, int]
    among: float
    among_low: float
    among_high: float
    level: float = 0.95


def similarities(
    a: Stack, b: Stack, protocol: AverageProtocol, where: str = 'region', level: float = 0.95
) -> list[Similarity]:
    """Compares the average maps of two sets of a class, target by target.

    Compared are cells ``coarse`` times as large as those of the maps, in which both sets have
    points of at least ``min_objects`` detections.

    The interval is that of the bootstrap over frames, with all their detections of either set. Maps
    of resampled frames are noisier than the maps themselves, so that their correlation is lower;
    hence not the percentiles of the draws are its ends, but the value plus and minus their spread,
    both on Fisher's scale z = artanh(r).

    Args:
        a: The one set, K detections.
        b: The other.
        protocol: How.
        where: ``'region'``, or ``'box'`` for the cells inside the box alone.
        level: Probability of the intervals.

    Returns:
        T similarities.
    """
    a, b = a.coarser(protocol.coarse), b.coarser(protocol.coarse)
    cells = _common_cells(a, b, protocol.min_objects, where)
    values_a, values_b = (_Cells(stack, cells, protocol.weight) for stack in (a, b))
    generator = np.random.default_rng(protocol.seed)
    ones = [torch.ones(len(stack), 1, dtype=torch.float64) for stack in (a, b)]
    found = _correlations(values_a, values_b, *ones, at_least=protocol.min_objects)[:, 0]
    spread = _spread(values_a, values_b, a.frames, b.frames, protocol.draws, generator)
    among = _among(values_a, len(a), len(b), protocol, generator)
    reach = NormalDist().inv_cdf((1 + level) / 2)
    result = []
    for value, sd, (mean, low, high) in zip(
        found.tolist(), spread, _central(among, level), strict=True
    ):
        z = np.arctanh(np.clip(value, -_LARGEST, _LARGEST))
        ends = np.tanh([z - reach * sd, z + reach * sd])
        result.append(
            Similarity(
                value, float(ends[0]), float(ends[1]), len(cells), (len(a), len(b)),
                mean, low, high, level,
            )
        )  # fmt: skip
    return result


def inside_box(grid: Grid) -> Tensor:
    """Tells which of a grid's cells, counted in one row, lie in the box: (X * Y * Z,) bool."""
    inside = torch.zeros(grid.shape, dtype=torch.bool)
    inside[tuple(slice(p, p + c) for p, c in zip(grid.pad, grid.cells, strict=True))] = True
    return inside.flatten()


def _common_cells(a: Stack, b: Stack, at_least: int, where: str) -> Tensor:
    size = a.grid.size
    counts = [torch.bincount(stack.cell, minlength=size) for stack in (a, b)]
    common = (counts[0] >= at_least) & (counts[1] >= at_least)
    if where == 'box':
        common &= inside_box(a.grid)
    return common.nonzero().flatten()


class _Cells:
    """Sparse (V, K) matrices of a stack over V cells: what each detection adds to each cell."""

    def __init__(self, stack: Stack, cells: Tensor, weight: str) -> None:
        place = torch.full((stack.grid.size,), -1)
        place[cells] = torch.arange(len(cells))
        keep = place[stack.cell] >= 0
        index = torch.stack([place[stack.cell[keep]], stack.owner[keep]])
        sums, weights = stack.weights(weight)
        self.shape = (len(cells), len(stack))
        self.sums = [self._matrix(index, row[keep]) for row in sums]
        self.weights = self._matrix(index, weights[keep])
        self.objects = self._matrix(index, torch.ones_like(weights[keep]))

    def _matrix(self, index: Tensor, values: Tensor) -> Tensor:
        return torch.sparse_coo_tensor(index, values, self.shape, check_invariants=True).coalesce()

    def means(self, times: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns T means (V, D), and objects (V, D), if detection k counts (K, D) times."""
        weights = self.weights @ times
        safe = torch.where(weights > 0, weights, torch.nan)
        return [row @ times / safe for row in self.sums], self.objects @ times


def _correlations(
    a: _Cells, b: _Cells, times_a: Tensor, times_b: Tensor, at_least: float
) -> Tensor:
    """(T, D) correlations if detections count so many times; NaN where not defined."""
    (means_a, objects_a), (means_b, objects_b) = a.means(times_a), b.means(times_b)
    use = (objects_a >= at_least) & (objects_b >= at_least)
    rows = [_masked_pearson(x, y, use) for x, y in zip(means_a, means_b, strict=True)]
    return torch.stack(rows) if rows else times_a.new_zeros(0, times_a.shape[1])


def _masked_pearson(x: Tensor, y: Tensor, use: Tensor) -> Tensor:
    """(D,) Pearson's correlation of the columns of x and y (V, D) over the rows in use (V, D)."""
    count = use.sum(0)
    x, y = (_centred(v, use, count) for v in (x, y))
    norms = ((x * x).sum(0) * (y * y).sum(0)).sqrt()
    defined = (count >= 3) & (norms > 0)
    value = (x * y).sum(0) / torch.where(defined, norms, torch.nan)
    return value.clamp(-1, 1)


def _centred(values: Tensor, use: Tensor, count: Tensor) -> Tensor:
    """Values minus their column's mean where in use, else 0; rounding of a constant is 0 too."""
    kept = torch.where(use, values, 0.0)
    centred = torch.where(use, kept - kept.sum(0) / count.clamp(min=1), 0.0)
    largest = kept.abs().amax(0) if len(kept) else kept.sum(0)
    return centred * (centred.abs().amax(0) > 1e-12 * largest) if len(kept) else centred


def _spread(
    a: _Cells,
    b: _Cells,
    frames_a: tuple[str, ...],
    frames_b: tuple[str, ...],
    draws: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """(T,) standard deviation of z over resampled frames; NaN if a set has less than two."""
    names = sorted({*frames_a, *frames_b})
    if min(len({*frames_a}), len({*frames_b})) < 2 or not a.sums:
        return np.full(len(a.sums), np.nan)
    number = {name: i for i, name in enumerate(names)}
    index_a, index_b = (torch.tensor([number[f] for f in fs]).long() for fs in (frames_a, frames_b))
    found = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, draws - start)
        drawn = generator.multinomial(len(names), [1 / len(names)] * len(names), size)
        times = torch.from_numpy(drawn.T.astype(np.float64))
        found.append(_correlations(a, b, times[index_a], times[index_b], at_least=1))
    z = torch.cat(found, dim=1).clamp(-_LARGEST, _LARGEST).atanh().numpy()
    return np.array([np.std(row[~np.isnan(row)]) if (~np.isnan(row)).sum() > 1 else np.nan
                     for row in z])  # fmt: skip


def _among(
    a: _Cells, count: int, other: int, protocol: AverageProtocol, generator: np.random.Generator
) -> np.ndarray:
    """(T, D) correlations of two disjoint random parts of the first set."""
    part = min(other, count // 2)
    if part == 0:
        return np.full((len(a.sums), 0), np.nan)
    found = []
    for start in range(0, protocol.draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, protocol.draws - start)
        order = np.argsort(generator.random((count, size)), axis=0)
        chosen = torch.from_numpy((order < part).astype(np.float64))
        found.append(_correlations(a, a, chosen, 1 - chosen, at_least=protocol.min_objects))
    return torch.cat(found, dim=1).numpy()


def _central(values: np.ndarray, level: float) -> list[tuple[float, float, float]]:
    """Mean and central part of each row, NaN left out."""
    found = []
    for row in values:
        row = row[~np.isnan(row)]
        ends = np.quantile(row, [(1 - level) / 2, (1 + level) / 2]) if len(row) else [np.nan] * 2
        found.append((float(row.mean()) if len(row) else np.nan, float(ends[0]), float(ends[1])))
    return found
