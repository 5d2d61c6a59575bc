"""Figures of true and false positives (4.3 of FFAM), and where in the box a map lies (4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .average_maps import MapCollection
from .average_protocol import Grid
from .average_similarity import inside_box, similarities
from .average_stack import Stack
from .intervals import bootstrap

#: A false positive that overlaps an object of its class by more than this found it, but loosely.
NEAR = 0.1
#: Densities of false and true positives that are compared.
DENSITIES = ('density', 'density_10m', 'around')
#: Parts of the box whose saliency is compared with that of the whole box.
ZONES = ('corners', 'top', 'front', 'rear')
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class Figure:
    """One figure with its interval and count.

    Attributes:
        category: A class, or ``'all'``.
        which: A set: ``'tp'``, ``'fp'``, ``'all'``, or ``'fp/tp'`` for what compares two.
        target: Whose map; '' where no map is measured.
        name: What is measured.
        value: The figure; NaN where it is not defined.
        low: Lower end of its interval; NaN where there is none.
        high: Upper end.
        count: Detections that went in.
    """

    category: str
    which: str
    target: str
    name: str
    value: float
    low: float
    high: float
    count: int


def figures(collection: MapCollection) -> list[Figure]:
    """Returns all figures of a collection: detections, similarities, zones."""
    return [
        *detection_figures(collection),
        *similarity_figures(collection),
        *zone_figures(collection),
    ]


def detection_figures(collection: MapCollection) -> list[Figure]:
    """Describes the detections of each class and set.

    ``count``; ``density``, points in the box over its volume (per cubic metre); ``density_10m``,
    what that would be at a distance of 10 m, as density falls with the distance squared;
    ``around``, the density of the region around the box; ``points`` in the box; ``distance`` from
    the sensor in the ground plane, metres; ``score``; means over detections. Of false positives
    ``near``, the part that overlaps an object of its class by more than ``NEAR``. Of both
    (``'fp/tp'``): the ratios of mean densities, and ``false``, the part of all detections that is
    false. Intervals: bootstrap over frames.
    """
    found = []
    for category in collection.categories:
        stacks = {which: collection.stack(category, which) for which in collection.sets}
        for which, stack in stacks.items():
            found.append(_count(category, which, len(stack)))
            values = describe(stack)
            if which == 'fp':
                values['near'] = (stack.overlaps > NEAR).double()
            for name, column in values.items():
                found.append(_mean(collection, category, which, name, column, stack.frames))
        if collection.annotated:
            found += _comparison(collection, category, [stacks['all']])
    if collection.annotated:
        found += _pooled(collection)
    return found


def describe(stack: Stack) -> dict[str, Tensor]:
    """Returns what is known of each of K detections without its map: (K,) float64 a name."""
    boxes = stack.boxes.double()
    volume = boxes[:, 3:6].prod(1)
    around = (np.prod(stack.grid.reach) - 1) * volume
    distance = boxes[:, :2].norm(dim=1)
    values = {
        'density': stack.inside / volume,
        'density_10m': stack.inside / volume * (distance / 10) ** 2,
        'around': stack.around / around,
        'points': stack.inside.double(),
        'distance': distance,
        'score': stack.scores.double(),
    }
    if not any(stack.grid.pad):
        del values['around']
    return values


def similarity_figures(collection: MapCollection) -> list[Figure]:
    """Compares the average maps of true and false positives; see ``similarities``.

    ``similarity_region`` and ``similarity_box``; ``among_region`` and ``among_box``: what two
    random parts of the true positives have; ``cells_region`` and ``cells_box``: common cells.
    """
    if not collection.annotated:
        return []
    found = []
    for category in collection.categories:
        stacks = [collection.stack(category, which) for which in ('tp', 'fp')]
        for where in ('region', 'box'):
            compared = similarities(*stacks, collection.protocol, where)
            cells = float(compared[0].cells) if compared else np.nan
            found.append(Figure(category, 'fp/tp', '', f'cells_{where}', cells, np.nan, np.nan,
                                sum(len(stack) for stack in stacks)))  # fmt: skip
            for target, s in zip(collection.targets, compared, strict=True):
                key = (category, 'fp/tp', target)
                count = sum(s.counts)
                found.append(Figure(*key, f'similarity_{where}', s.value, s.low, s.high, count))
                among = (s.among, s.among_low, s.among_high, s.counts[0])
                found.append(Figure(*key, f'among_{where}', *among))
    return found


def zone_figures(collection: MapCollection) -> list[Figure]:
    """Tells where in the box the maps lie.

    The mean saliency of the points in a zone over that of all points in the box: above 1 where the
    detector looks more than at an average point of the box. Zones: the quarter of the box at its
    four upright edges (``corners``), the upper third (``top``), and the thirds at either end
    (``front``, ``rear``). Points count alike, whatever the protocol's weight. Intervals: bootstrap
    over frames.
    """
    found, protocol = [], collection.protocol
    for category in collection.categories:
        masks = zones(protocol.grid_of(category))
        for which in collection.sets:
            stack = collection.stack(category, which)
            box_sums, box_points = _per_detection(stack, inside_box(stack.grid))
            for zone, mask in masks.items():
                sums, points = _per_detection(stack, mask)
                for row, target in enumerate(collection.targets):
                    values = np.stack(
                        [sums[row], points, box_sums[row], box_points], axis=1
                    )  # fmt: skip
                    ratio = resampled(
                        values, stack.frames, _relative, protocol.draws, protocol.seed
                    )
                    found.append(Figure(category, which, target, f'zone_{zone}', *ratio,
                                        len(stack)))  # fmt: skip
    return found


def zones(grid: Grid) -> Mapping[str, Tensor]:
    """Returns the cells of each zone, counted in one row: (X * Y * Z,) bool by name."""
    axes = []
    for cells, pad in zip(grid.cells, grid.pad, strict=True):
        place = (torch.arange(cells + 2 * pad) - pad + 0.5) / cells * 2 - 1
        axes.append(place)
    x, y, z = torch.meshgrid(*axes, indexing='ij')
    box = inside_box(grid).view(grid.shape)
    found = {
        'corners': (x.abs() > 0.5) & (y.abs() > 0.5),
        'top': z > 1 / 3,
        'front': x > 1 / 3,
        'rear': x < -1 / 3,
    }
    return {name: (mask & box).flatten() for name, mask in found.items()}


def resampled(
    values: np.ndarray,
    frames: Sequence[str],
    statistic: object,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Returns a statistic of sums over detections, and its interval of the bootstrap over frames.

    There is no interval, NaN, where one of the sums comes from a single frame.

    Args:
        values: (K, C) what each detection adds to each of C sums.
        frames: The frame of each detection.
        statistic: From sums (..., C) to figures (...); NaN where it is not defined.
        draws: Resamples.
        seed: Of the draws.
        level: Probability of the interval.
    """
    if not len(values):
        return np.nan, np.nan, np.nan
    names, index = np.unique(np.asarray(frames), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    with np.errstate(invalid='ignore', divide='ignore'):
        value = float(statistic(sums.sum(0)))
        generator, found = np.random.default_rng(seed), []
        for start in range(0, draws, _DRAWS_AT_ONCE):
            size = min(_DRAWS_AT_ONCE, draws - start)
            drawn = generator.multinomial(len(names), [1 / len(names)] * len(names), size)
            found.append(statistic(drawn @ sums))
    found = np.concatenate(found)
    found = found[np.isfinite(found)]
    # What comes from a single frame does not vary with the frames: nothing is known of its spread.
    single = bool((np.count_nonzero(sums, axis=0) == 1).any())
    if len(names) < 2 or single or not len(found):
        return (value if np.isfinite(value) else np.nan), np.nan, np.nan
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return (value if np.isfinite(value) else np.nan), float(low), float(high)


def _relative(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1] / (sums[..., 2] / sums[..., 3])


def _per_detection(stack: Stack, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(T, K) saliency and (K,) points of each detection in the cells of a mask."""
    keep = mask[stack.cell]
    owner, count = stack.owner[keep], len(stack)
    sums = [torch.bincount(owner, row[keep], minlength=count).numpy() for row in stack.sums]
    points = torch.bincount(owner, stack.points[keep].double(), minlength=count).numpy()
    return np.array(sums).reshape(len(stack.sums), count), points


def _comparison(collection: MapCollection, category: str, stacks: Sequence[Stack]) -> list[Figure]:
    """Compares false with true positives, of the classes' detections together."""
    protocol = collection.protocol
    frames = [frame for stack in stacks for frame in stack.frames]
    false = torch.cat([~stack.matched for stack in stacks]).double()
    columns = [describe(stack) for stack in stacks]
    found = [_mean(collection, category, 'fp/tp', 'false', false, frames)]
    for name in DENSITIES:
        if name not in columns[0]:
            continue
        column = torch.cat([values[name] for values in columns])
        sums = torch.stack([column * false, false, column * (1 - false), 1 - false], dim=1)
        ratio = resampled(sums.numpy(), frames, _relative, protocol.draws, protocol.seed)
        found.append(Figure(category, 'fp/tp', '', name, *ratio, len(frames)))
    return found


def _pooled(collection: MapCollection) -> list[Figure]:
    """Counts and the comparison of all classes together."""
    stacks = [collection.stack(category) for category in collection.categories]
    if not stacks:
        return [_count('all', which, 0) for which in collection.sets]
    matched = torch.cat([stack.matched for stack in stacks])
    counts = {'tp': int(matched.sum()), 'fp': int((~matched).sum()), 'all': len(matched)}
    return [
        *(_count('all', which, count) for which, count in counts.items()),
        *_comparison(collection, 'all', stacks),
    ]


def _count(category: str, which: str, count: int) -> Figure:
    return Figure(category, which, '', 'count', float(count), np.nan, np.nan, count)


def _mean(
    collection: MapCollection,
    category: str,
    which: str,
    name: str,
    values: Tensor,
    frames: Sequence[str],
) -> Figure:
    protocol = collection.protocol
    found = bootstrap(values.numpy(), list(frames), protocol.draws, seed=protocol.seed)
    ends = (found.low, found.high) if found.groups > 1 else (np.nan, np.nan)
    return Figure(category, which, '', name, found.mean, *ends, found.count)
