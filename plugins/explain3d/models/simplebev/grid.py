"""The voxels around the vehicle, in the reference frame: x right, y down, z forward, metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import InputError


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid; tensors over it are (Z, Y, X), bird's-eye maps (Z, X).

    ::

            z (forward, rows)
            ^
            |        row 0 is the most negative z, column 0 the most negative x
            |
            o------> x (right, columns)         y points down, into the ground

    Attributes:
        x: (low, high, cells) in metres.
        y: (low, high, cells) in metres.
        z: (low, high, cells) in metres.

    Raises:
        InputError: If an axis is not (low, high, cells) with low < high and cells >= 1.
    """

    x: tuple[float, float, int]
    y: tuple[float, float, int]
    z: tuple[float, float, int]

    def __post_init__(self) -> None:
        for name in 'xyz':
            axis = tuple(getattr(self, name))
            if len(axis) != 3 or axis[0] >= axis[1] or axis[2] < 1 or axis[2] != int(axis[2]):
                raise InputError(
                    f'Expected (low, high, cells) with low < high and cells >= 1 as axis {name!r} '
                    f'of the grid, received {axis}.'
                )

    @classmethod
    def of(cls, grid: VoxelGrid | Mapping[str, Sequence[float]]) -> VoxelGrid:
        """Returns the grid of a config: ``dict(x=(-50, 50, 200), y=(-5, 5, 8), z=...)``."""
        if isinstance(grid, cls):
            return grid
        if set(grid) != set('xyz'):
            raise InputError(
                f'Expected a grid with the axes x, y and z, received {sorted(grid)}: write '
                'grid=dict(x=(low, high, cells), y=..., z=...).'
            )
        return cls(**{name: tuple(axis) for name, axis in grid.items()})

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of cells (Z, Y, X)."""
        return int(self.z[2]), int(self.y[2]), int(self.x[2])

    def centres(self, like: Tensor) -> Tensor:
        """Returns the (Z * Y * X, 3) centres x, y, z in metres, on the device of ``like``.

        They are computed in float64 and rounded to the dtype of ``like`` once.
        """
        steps = []
        for low, high, cells in (self.z, self.y, self.x):
            index = torch.arange(int(cells), device=like.device, dtype=torch.float64)
            steps.append(low + (index + 0.5) * ((high - low) / cells))
        z, y, x = torch.meshgrid(*steps, indexing='ij')
        return torch.stack([x, y, z], dim=-1).reshape(-1, 3).to(like.dtype)

    def cells(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the voxel that each point lies in.

        Args:
            xyz: (N, 3) points in metres.

        Returns:
            (N,) flat index in (Z, Y, X), and (N,) whether the point is inside; the index of a
            point outside is 0. A cell contains its lower faces and not its upper ones.
        """
        low = xyz.new_tensor([self.x[0], self.y[0], self.z[0]])
        size = xyz.new_tensor([(axis[1] - axis[0]) / axis[2] for axis in (self.x, self.y, self.z)])
        count = xyz.new_tensor([self.x[2], self.y[2], self.z[2]])
        index = torch.floor((xyz - low) / size)
        inside = ((index >= 0) & (index < count)).all(dim=1)
        x, y, z = torch.where(inside[:, None], index, 0).long().unbind(dim=1)
        return (z * int(self.y[2]) + y) * int(self.x[2]) + x, inside
