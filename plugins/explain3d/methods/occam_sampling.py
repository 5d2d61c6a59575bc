"""Random sub-clouds of OccAM: whole voxels are kept or dropped.

A voxel's fate is a hash of its index, the sample's number and the seed: it depends neither on the
order of the points nor on the device, and sample t is the same in a run that was stopped and goes
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError

# Odd multipliers of SplitMix64 and of spatial hashing, as signed 64-bit integers.
_MIX = (-4658895280553007687, -7723592293110705685)
_AXES = (73856093, 19349663, 83492791)
_STEP = -7046029254386353131


@dataclass(frozen=True)
class VoxelSampling:
    """Keeps a voxel at distance d with the probability p(d) = sum_i density[i] d^i.

    Near the sensor a voxel holds many points and an object many voxels: dropping half of them
    leaves it recognisable. Far away it does not, so p grows with the distance.
    ``tools/fit_occam_density.py`` fits the polynomial to a data set.

    Attributes:
        voxel_size: Edge of the voxels, metres.
        density: Coefficients of p in the bird's-eye-view distance (metres), the constant first.
        bounds: Smallest and largest p; both between 0 and 1.
        seed: Of the hash.

    Raises:
        InputError: If a value is out of its range.
    """

    voxel_size: float = 0.2
    density: tuple[float, ...] = (0.4,)
    bounds: tuple[float, float] = (0.05, 0.95)
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.bounds
        if self.voxel_size <= 0 or not self.density or not 0 < low <= high <= 1:
            raise InputError(
                f'Expected voxel_size > 0, at least one coefficient of density and bounds '
                f'0 < low <= high <= 1, received {self.voxel_size}, {self.density} and '
                f'{self.bounds}.'
            )

    def probability(self, points: Tensor) -> Tensor:
        """Returns the (N,) probability that each of (N, >= 3) points' voxels is kept."""
        distance = points[:, :2].double().norm(dim=1)
        value = torch.zeros_like(distance)
        for coefficient in reversed(self.density):
            value = value * distance + coefficient
        return value.clamp(*self.bounds)

    def masks(self, points: Tensor, samples: Sequence[int]) -> Tensor:
        """Returns which points are kept in which samples.

        Each sample shifts the voxels' grid at random. A voxel whose points lie at different
        distances is judged point by point, against one random number.

        Args:
            points: (N, >= 3) x, y, z, ..., metres.
            samples: B numbers of samples.

        Returns:
            (B, N) bool.
        """
        xyz, probability = points[:, :3].double(), self.probability(points)
        kept = [self._uniform(xyz, sample) < probability for sample in samples]
        return torch.stack(kept) if kept else probability.new_zeros(0, len(points)).bool()

    def _uniform(self, xyz: Tensor, sample: int) -> Tensor:
        """Returns (N,) numbers in [0, 1), equal for points of one voxel."""
        shift = np.random.default_rng((self.seed, sample)).random(3) * self.voxel_size
        value = 0
        for axis in range(3):  # A number each: a tensor of three would be copied to the device.
            cell = ((xyz[:, axis] + float(shift[axis])) / self.voxel_size).floor().long()
            value = value + cell * _AXES[axis]
        value = _mix(value + _signed((sample + 1) * _STEP)) ^ _signed(self.seed * _AXES[0])
        return _shifted(_mix(value), 11).double() / (1 << 53)


def _signed(value: int) -> int:
    """Wraps around as a product of 64-bit integers does."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser; products of 64-bit integers wrap around."""
    value = (value ^ _shifted(value, 30)) * _MIX[0]
    value = (value ^ _shifted(value, 27)) * _MIX[1]
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """A shift to the right that fills in zeros."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def voxel_counts(points: np.ndarray, voxel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts the points in each occupied voxel of a frame.

    Args:
        points: (N, >= 3) x, y, z, ..., metres.
        voxel_size: Edge of the voxels, metres.

    Returns:
        (V,) mean bird's-eye-view distance of each occupied voxel's points, metres, and (V,) how
        many points there are in it.

    Raises:
        InputError: If a coordinate is not finite, or the voxels have no size.
    """
    if not 0 < voxel_size < np.inf or not np.isfinite(np.asarray(points)[:, :3]).all():
        raise InputError(
            f'Expected finite points and an edge > 0, received voxel_size={voxel_size} and '
            f'{len(points)} points.'
        )
    with np.errstate(over='ignore'):
        cells = np.floor(np.asarray(points)[:, :3] / voxel_size)
    if (np.abs(cells) > 2**53).any():
        raise InputError(
            f'Expected points whose voxels can be counted, received coordinates of up to '
            f'{np.abs(cells).max():.3g} voxels of {voxel_size} m.'
        )
    cells = cells.astype(np.int64)
    _, index, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    distance = np.bincount(index.ravel(), np.hypot(points[:, 0], points[:, 1]), len(counts))
    return distance / counts, counts


def fit_density(
    distance: np.ndarray,
    counts: np.ndarray,
    target: float,
    degree: int,
    bounds: tuple[float, float],
) -> tuple[float, ...]:
    """Fits p(d) so that of a voxel's points ``target`` are kept on average.

    Args:
        distance: (V,) distance of each occupied voxel, metres.
        counts: (V,) points in it.
        target: Points to keep of a voxel on average, where it holds more than that.
        degree: Of the polynomial.
        bounds: Smallest and largest p.

    Returns:
        ``degree + 1`` coefficients, the constant first.

    Raises:
        InputError: If there are fewer distances to fit than coefficients, or numbers are not
            finite.
    """
    if not len(distance) or not np.isfinite(distance).all() or not (min(distance) >= 0 < target):
        raise InputError(
            f'Expected finite distances, one or more, and a number of points > 0 to keep, received '
            f'{len(distance)} distances and target={target}.'
        )
    edges = np.arange(0, distance.max() + 2, 2.0)
    place = np.digitize(distance, edges) - 1
    number = np.bincount(place, minlength=len(edges))
    filled = number > 0
    if filled.sum() <= degree:
        raise InputError(
            f'Expected voxels at more than {degree} distances (in steps of 2 m) for a polynomial '
            f'of degree {degree}, received {int(filled.sum())}: give more frames.'
        )
    mean = np.bincount(place, counts, len(edges))[filled] / number[filled]
    wanted = np.clip(target / mean, *bounds)
    # A polynomial of the mean of each ring, weighted by how sure that mean is.
    fit = np.polynomial.Polynomial.fit(edges[filled] + 1, wanted, degree, w=number[filled] ** 0.5)
    return tuple(float(c) for c in fit.convert().coef)
