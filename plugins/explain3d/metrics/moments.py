"""Mean and standard deviation of figures that come sample by sample, from any number of processes.

A sample's figures are reduced where they arise; samples are merged in the order of their indices.
The result is the same, to the last bit, however the samples were shared out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of C figures each.

    Attributes:
        count: (C,) int64, how many values went in.
        excluded: (C,) int64, how many did not because they are NaN (not defined).
        mean: (C,) float64; 0 where nothing went in.
        squares: (C,) float64, sum of squared deviations from the mean.
    """

    count: np.ndarray
    excluded: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Reduces (P, C) values over P; NaN is counted, not averaged.

        Raises:
            InputError: If a value is infinite.
        """
        values = np.asarray(values, np.float64)
        if np.isinf(values).any():
            raise InputError('Expected finite figures or NaN (not defined), received infinite.')
        defined = ~np.isnan(values)
        count = defined.sum(0)
        mean = np.where(defined, values, 0).sum(0) / np.maximum(count, 1)
        squares = (np.where(defined, values - mean, 0) ** 2).sum(0)
        return cls(count, (~defined).sum(0), mean, squares)

    def __add__(self, other: Moments) -> Moments:
        """Joins two sets of values (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        difference, share = other.mean - self.mean, other.count / np.maximum(count, 1)
        return Moments(
            count,
            self.excluded + other.excluded,
            self.mean + difference * share,
            self.squares + other.squares + difference**2 * self.count * share,
        )

    @property
    def means(self) -> np.ndarray:
        """(C,) means; NaN where nothing went in."""
        return np.where(self.count > 0, self.mean, np.nan)

    @property
    def deviations(self) -> np.ndarray:
        """(C,) standard deviations of the values that went in (divisor: their count), or NaN."""
        variance = self.squares / np.maximum(self.count, 1)
        return np.where(self.count > 0, np.sqrt(variance), np.nan)


class SampleAccumulator:
    """Collects the figures of each sample once.

    Args:
        columns: What the C figures are; accumulators with others do not merge.

    Examples:
        >>> ours, theirs = SampleAccumulator(['pcc']), SampleAccumulator(['pcc'])
        >>> ours.add(0, [[0.5], [1.0]])
        >>> theirs.add(1, [[0.0]])
        >>> ours.merge(theirs)
        >>> float(ours.result().means[0])
        0.5
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._samples: dict[int, Moments] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, index: int) -> bool:
        return index in self._samples

    def add(self, index: int, values: np.ndarray) -> None:
        """Takes the (P, C) figures of sample ``index``; those of a repeated sample count once.

        Samplers repeat samples to give every process equally many.

        Raises:
            InputError: If there are not C figures.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise InputError(
                f'Expected figures of shape (pairs, {len(self.columns)}) for sample {index}, '
                f'received {values.shape}.'
            )
        self._samples.setdefault(int(index), Moments.of(values))

    def put(self, index: int, moments: Moments) -> None:
        """Takes the figures of sample ``index`` as ``samples`` gave them before.

        Raises:
            InputError: If there are not C figures.
        """
        if moments.mean.shape != (len(self.columns),):
            raise InputError(
                f'Expected {len(self.columns)} figures for sample {index}, received '
                f'{moments.mean.shape}.'
            )
        self._samples.setdefault(int(index), moments)

    def merge(self, other: SampleAccumulator) -> None:
        """Takes over the samples of another process.

        Raises:
            InputError: If its columns are others.
        """
        if other.columns != self.columns:
            raise InputError(
                f'Expected an accumulator of the columns {self.columns}, received '
                f'{other.columns}: all processes must run the same configuration.'
            )
        for index, moments in other.samples.items():
            self._samples.setdefault(index, moments)

    @property
    def samples(self) -> Mapping[int, Moments]:
        """The moments of each sample."""
        return self._samples

    def result(self) -> Moments:
        """Returns the moments over all values of all samples."""
        total = Moments.of(np.zeros((0, len(self.columns))))
        for index in sorted(self._samples):
            total = total + self._samples[index]
        return total
