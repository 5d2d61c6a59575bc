"""Confidence intervals over objects by the bootstrap, and paired differences of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

#: Resamples that are drawn at a time: a bound on memory.
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; never without its count.

    Attributes:
        mean: Mean of the values that are defined; NaN if there are none.
        low: Lower end of the interval.
        high: Upper end.
        count: Values that went in.
        undefined: Values that did not because they are NaN.
        groups: Groups (frames) that were resampled; equal to ``count`` where objects were.
        level: Probability that the interval is made for.
    """

    mean: float
    low: float
    high: float
    count: int
    undefined: int
    groups: int
    level: float = 0.95


def bootstrap(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the mean of ``values`` and its percentile-bootstrap interval.

    Of one object, or of the objects of one frame, there is nothing to resample: the interval is the
    mean itself, and its count of groups, 1, says so.

    Args:
        values: (n,) one value an object; NaN where it is not defined.
        groups: The frame of each object. If given, frames are resampled with all their objects:
            objects of one frame are not independent. Else objects are.
        draws: Resamples.
        level: Probability of the interval.
        seed: Of the draws.

    Raises:
        InputError: If a value is infinite, lengths differ, or there is no draw or level.
    """
    values = np.asarray(values, np.float64)
    if np.isinf(values).any() or values.ndim != 1:
        raise InputError(
            f'Expected a list of finite figures or NaN (not defined), received shape '
            f'{values.shape} with {int(np.isinf(values).sum())} infinite.'
        )
    if draws < 1 or not 0 < level < 1:
        raise InputError(
            f'Expected one or more draws and a level between 0 and 1, received {draws} and {level}.'
        )
    if groups is not None and len(groups) != len(values):
        raise InputError(f'Expected {len(values)} groups, received {len(groups)}.')
    defined = ~np.isnan(values)
    kept = values[defined]
    if len(kept) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, int((~defined).sum()), 0, level)
    if groups is None:
        sums, sizes = kept, np.ones(len(kept))
    else:
        names, index = np.unique(np.asarray(groups)[defined], return_inverse=True)
        sums = np.bincount(index, kept, len(names))
        sizes = np.bincount(index, minlength=len(names)).astype(float)
    means = _resampled_means(sums, sizes, draws, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(kept.mean()), float(low), float(high), len(kept), int((~defined).sum()),
        len(sums), level,
    )  # fmt: skip


def paired_difference(
    a: dict[str, float],
    b: dict[str, float],
    groups: dict[str, str] | None = None,
    **options: float,
) -> Interval:
    """Returns the mean of a - b over the objects that both have, with its interval.

    Args:
        a: One value for each object's name.
        b: The same of another method.
        groups: The frame of each object, see ``bootstrap``.
        options: Of ``bootstrap``.

    Raises:
        InputError: If the objects differ: a difference over a part of them would be that of
            another set than the two means.
    """
    if a.keys() != b.keys():
        only = sorted(a.keys() ^ b.keys())
        raise InputError(
            f'Expected the same objects for both methods, received {len(only)} that only one '
            f'has, as {only[:3]}: run both on the same frames and detections.'
        )
    names = sorted(a)
    values = [a[name] - b[name] for name in names]
    return bootstrap(values, None if groups is None else [groups[n] for n in names], **options)


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, draws: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    n, means = len(sums), []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        index = generator.integers(0, n, (min(_DRAWS_AT_ONCE, draws - start), n))
        means.append(sums[index].sum(1) / sizes[index].sum(1))
    return np.concatenate(means)
