"""What the columns of a cloud are, and whether numbers can be points at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...core.errors import InputError

#: No LiDAR sees as far, in metres: larger coordinates were read wrongly or are of another frame.
FARTHEST = 1e4
#: Coordinates next to zero, but not zero: what integers, text or halves of numbers read as.
_NEAREST = 1e-6
#: Share of a file's rows that may be implausible: sensors mark some returns as not valid.
_TOLERATED = 0.01
#: Rows below which widths cannot be told apart, and widths that files of points have.
_FEWEST, _WIDTHS = 100, range(3, 9)
#: What formats with named columns call the intensity.
_INTENSITY = ('intensity', 'i', 'reflectance', 'reflectivity', 'remission', 'scalar_intensity')


@dataclass(frozen=True)
class PointColumns:
    """The columns of a cloud as a detector's data pipeline reads them.

    Attributes:
        width: How many there are, x, y and z in metres first.
        source: Where that is said, for messages.
        names: What they are called, where known; else x, y, z, intensity, and what follows.
    """

    width: int
    source: str
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = ', '.join(self.names or ('x', 'y', 'z', 'intensity', '...')[: self.width])
        return f'{self.width} columns ({names}; {self.source})'

    def checked(self, points: Any, what: str) -> np.ndarray:
        """Returns points as an array (N, ``width``) of its own, float32.

        Args:
            points: An array or tensor.
            what: Names them in messages.

        Raises:
            InputError: If they have another shape, are no numbers, or cannot be coordinates.
        """
        if isinstance(points, Tensor):
            points = points.detach().cpu().numpy()
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != self.width or points.dtype.kind not in 'fiu':
            raise InputError(
                f'{what}: expected points of shape (N, {self.width}), {self}, received '
                f'{points.dtype} of shape {points.shape}. Give the columns that the files of the '
                'data set have, in their order.'
            )
        points = np.array(points, dtype=np.float32)
        # Points that are not finite are the pipeline's to remove: sensors mark returns by them.
        wrong = _implausible(np.where(np.isfinite(points), points, 0))
        if wrong.sum() > _TOLERATED * len(points):
            raise InputError(
                f'{what}: {int(wrong.sum())} of {len(points)} points have coordinates that no '
                f'LiDAR measures (beyond {FARTHEST:g} m, or between 0 and {_NEAREST:g} m), such as '
                f'{points[wrong][0, :3].tolist()}: expected metres in the LiDAR frame, {self}. '
                'Read the file in its own format, and subtract the position of the sensor from '
                'coordinates of a map.'
            )
        return points

    def of_raw(self, values: np.ndarray, what: str) -> np.ndarray:
        """Returns the numbers of a file without a header as points (N, ``width``).

        Args:
            values: (M,) float32.
            what: Names the file in messages.

        Raises:
            InputError: If they cannot be that many columns of float32.
        """
        expected = f'expected float32 numbers (4 bytes each), {self}'
        if len(values) % self.width:
            raise InputError(
                f'{what} has {values.nbytes} bytes, no multiple of {4 * self.width}: {expected}. '
                f'{self._guess(values)}'
            )
        points = values.reshape(-1, self.width)
        wrong = _implausible(points)
        if wrong.sum() > _TOLERATED * len(points):
            raise InputError(
                f'{what} does not hold such points: {expected}, received {int(wrong.sum())} of '
                f'{len(points)} with coordinates such as {points[wrong][0, :3].tolist()}. '
                f'{self._guess(values)}'
            )
        other = self._other_width(values)
        if other is not None:
            raise InputError(
                f'{what} looks like {other} columns, not like {self.width}: {expected}. '
                f'{self._guess(values)}'
            )
        return points

    def of_named(self, columns: Mapping[str, np.ndarray], what: str) -> np.ndarray:
        """Returns points (N, ``width``) made of columns that have names.

        Args:
            columns: Each (N,), in the order of the file.
            what: Names the file in messages.

        Raises:
            InputError: If columns are missing, or it is not known which are meant.
        """
        known = {name.lower(): values for name, values in columns.items()}
        for alias in _INTENSITY:
            if 'intensity' not in known and alias in known:
                known['intensity'] = known.pop(alias)
        wanted = list(self.names or ('x', 'y', 'z', 'intensity')[: self.width])
        rest = [name for name in known if name not in wanted]
        if len(wanted) < self.width and len(rest) == self.width - len(wanted):
            wanted += rest
        missing = [name for name in wanted if name not in known]
        if missing or len(wanted) != self.width:
            raise InputError(
                f'{what} has the columns {list(columns)}: expected {self}'
                f'{f", of which {missing} are missing" if missing else ""}. Add them, or save the '
                'points as a .npy file with exactly these columns.'
            )
        return np.stack([np.asarray(known[name], np.float32) for name in wanted], 1)

    def _guess(self, values: np.ndarray) -> str:
        """Returns a sentence about what a file might be instead."""
        content = values.tobytes()
        if len(content) % 8 == 0 and _plausible(np.frombuffer(content, np.float64), self.width):
            return 'They are points in float64: convert them (points.astype("float32")).'
        other = self._other_width(values)
        if other is not None:
            return f'{other} columns fit: keep those that the pipeline reads, or set its columns.'
        return 'Save the points as float32 without a header, or as .npy, .pcd or .ply.'

    def _other_width(self, values: np.ndarray) -> int | None:
        """Returns a width that explains the numbers where the expected one does not.

        Read with a wrong width, each column is a mixture of all true ones, and all look alike.
        """
        if len(values) < _FEWEST * self.width:
            return None
        found = {}
        for width in _WIDTHS:
            divisor = math.gcd(width, self.width)
            if divisor == self.width or not _plausible(values, width):
                continue
            # What both widths see of the true columns, they see of their common divisor.
            common = _contrast(values, divisor)
            own, other = _contrast(values, self.width) - common, _contrast(values, width) - common
            if other > 0.02 + 10 * own:
                found[width] = other
        return next((w for w, gain in found.items() if gain > 0.9 * max(found.values())), None)


def _contrast(values: np.ndarray, width: int) -> float:
    """The part of the variance of log(1 + abs(number)) that the column explains, in [0, 1]."""
    sizes = np.log1p(np.abs(values[: len(values) // width * width].astype(np.float64)))
    sizes = np.where(np.isfinite(sizes), sizes, 0).reshape(-1, width)
    return float(sizes.mean(0).var() / max(sizes.var(), 1e-12))


def _implausible(points: np.ndarray) -> np.ndarray:
    """(N,) bool, whether x, y or z is not finite, or no distance in metres."""
    xyz = points[:, :3]
    sizes = np.abs(xyz)
    return (~(sizes <= FARTHEST) | ((sizes > 0) & (sizes < _NEAREST))).any(1)


def _plausible(values: np.ndarray, width: int) -> bool:
    """Whether numbers can be points of so many columns."""
    if len(values) % width:
        return False
    points = values.reshape(-1, width)
    return bool(_implausible(points).sum() <= _TOLERATED * len(points))
