"""Frames and grids of the bird's-eye view.

::

    ego (nuScenes, MMDetection3D)        reference (SimpleBEV's "camera" axes)

          z up   x forward                        z forward
            |   /                                /
            |  /                                /
    y left -+-+                                +----- x right
                                               |
                                               y down

Both are right-handed, in metres. ``a2b`` names the 4 x 4 matrix that takes homogeneous points of
frame a to frame b. A bird's-eye-view map is (C, Z, X): row = z, row 0 the most negative;
column = x. Cell i of an axis (low, high, cells) covers low + i * size to low + (i + 1) * size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explain3d.core.errors import InputError

#: Turns ego axes (x forward, y left, z up) into reference axes (x right, y down, z forward).
EGO_TO_REFERENCE_AXES = np.array(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


@dataclass(frozen=True)
class BEVGrid:
    """The cells of a bird's-eye view in the reference frame.

    Args:
        x: (low, high, cells) to the right, metres.
        z: (low, high, cells) forward, metres.
        y: (low, high, cells) downward, metres; maps do not use it.
    """

    x: tuple[float, float, int]
    z: tuple[float, float, int]
    y: tuple[float, float, int] | None = None

    def __post_init__(self) -> None:
        for name in ('x', 'z'):
            low, high, cells = getattr(self, name)
            if not (high > low and cells == int(cells) and cells > 0):
                raise InputError(
                    f'Expected grid {name} = (low, high, cells) with low < high and a whole, '
                    f'positive number of cells, received {getattr(self, name)}: correct it.'
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells (Z, X)."""
        return int(self.z[2]), int(self.x[2])

    def to_cells(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns coordinates in cells: whole numbers lie on the centres of cells."""
        return tuple(
            (value - axis[0]) / (axis[1] - axis[0]) * axis[2] - 0.5
            for value, axis in ((x, self.x), (z, self.z))
        )

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the coordinates x (X,) and z (Z,) of the cells' centres, metres."""
        return tuple(
            axis[0] + (np.arange(axis[2]) + 0.5) * (axis[1] - axis[0]) / axis[2]
            for axis in (self.x, self.z)
        )


def rigid_inverse(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of rigid transforms (..., 4, 4): rotations (or mirrors) and shifts."""
    inverse = np.zeros_like(matrix, dtype=np.float64)
    turn = np.swapaxes(matrix[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = turn
    inverse[..., :3, 3] = -np.einsum('...ij,...j->...i', turn, matrix[..., :3, 3])
    inverse[..., 3, 3] = 1
    return inverse


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns points (..., 3) after the transform ``matrix`` (4, 4)."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def turn(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns free vectors (..., 3), such as velocities, after ``matrix`` (4, 4)."""
    return vectors @ matrix[:3, :3].T


def about_vertical(angle: float) -> np.ndarray:
    """Returns the 4 x 4 turn of the reference frame by ``angle`` radians, from z towards x."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[0, [0, 2]] = cos, sin
    matrix[2, [0, 2]] = -sin, cos
    return matrix
