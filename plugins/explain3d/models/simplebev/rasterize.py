"""Radar and LiDAR points as bird's-eye maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ...core.errors import InputError
from ...registry import MODELS
from .grid import VoxelGrid


@MODELS.register_module()
class PointRasterizer(BaseModule):
    """Writes points into voxels: whether there is one, and what one of them measured.

    Heights become channels: channel ``d * Y + y`` is quantity d in layer y. A grid with one layer
    (y with one cell) therefore gives a flat map, which suits radar, since it measures no height.

    A voxel with several points shows the first one's measurements. SimpleBEV's authors take a
    random one; an explanation must not change from run to run.

    Args:
        grid: The voxels, as in :class:`VoxelGrid`.
        occupancy: Whether the first quantity is 1 where there is a point.
        features: Names of the measurements to write, among the fields of the points.
        scale: Factors on these measurements, to bring them near to 1; None: unchanged.
        init_cfg: As in MMEngine.

    Raises:
        InputError: If nothing is to be written, or scale and features differ in number.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Sequence[float]],
        occupancy: bool = True,
        features: Sequence[str] = (),
        scale: Sequence[float] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.of(grid)
        self.occupancy = occupancy
        self.features = tuple(features)
        self.scale = tuple(scale) if scale is not None else (1.0,) * len(self.features)
        if len(self.scale) != len(self.features):
            raise InputError(
                f'Expected one scale for each of the features {self.features}, received '
                f'{self.scale}.'
            )
        if not (occupancy or self.features):
            raise InputError('Expected occupancy=True or features to rasterise, received neither.')

    @property
    def out_channels(self) -> int:
        """Number of quantities times number of layers."""
        return (self.occupancy + len(self.features)) * self.grid.shape[1]

    def forward(self, clouds: Sequence[Tensor], fields: Sequence[str]) -> Tensor:
        """Returns (B, D * Y, Z, X) maps.

        Args:
            clouds: B clouds (P_b, F); the first three columns are x, y, z in the reference frame.
            fields: Names of the F columns.

        Raises:
            InputError: If a field is missing, columns and fields differ in number, or a number
                that is used is not finite.
        """
        points = self._join(clouds, fields)
        sample = torch.repeat_interleave(
            torch.arange(len(clouds), device=points.device),
            torch.tensor([len(cloud) for cloud in clouds], device=points.device),
        )
        cell, inside = self.grid.cells(points[:, :3])
        depth, height, width = self.grid.shape
        voxels = depth * height * width
        cell = (sample * voxels + cell)[inside]
        values = self._values(points[inside])
        # The smallest index wins, on every device; an empty voxel points to the row of zeros.
        winner = torch.full((len(clouds) * voxels,), len(values), device=points.device)
        order = torch.arange(len(values), device=points.device)
        winner.scatter_reduce_(0, cell, order, 'amin')
        written = torch.cat([values, values.new_zeros(1, values.shape[1])])[winner]
        written = written.view(len(clouds), depth, height, width, -1)
        return written.permute(0, 4, 2, 1, 3).reshape(len(clouds), -1, depth, width)

    def _join(self, clouds: Sequence[Tensor], fields: Sequence[str]) -> Tensor:
        """Returns (P, 3 + features) of all clouds, checked."""
        missing = [name for name in self.features if name not in fields]
        if missing:
            raise InputError(
                f'Expected points with the fields {missing}, received {list(fields)}: let the '
                'loading transform keep them, or leave them out of the features.'
            )
        for index, cloud in enumerate(clouds):
            if cloud.dim() != 2 or cloud.shape[1] != len(fields):
                raise InputError(
                    f'Expected points (P, {len(fields)}) with the columns {list(fields)}, received '
                    f'{tuple(cloud.shape)} in sample {index} of the batch.'
                )
        columns = [0, 1, 2, *(list(fields).index(name) for name in self.features)]
        points = torch.cat([cloud[:, columns] for cloud in clouds])
        if not torch.isfinite(points).all():
            bad = int((~torch.isfinite(points)).any(dim=1).sum())
            raise InputError(
                f'Expected finite points, received {bad} of {len(points)} with NaN or infinity: '
                'remove them before the model.'
            )
        return points

    def _values(self, points: Tensor) -> Tensor:
        """Returns the (P, D) quantities of (P, 3 + features) points."""
        values = points[:, 3:] * points.new_tensor(self.scale)
        return torch.cat([torch.ones_like(points[:, :1]), values], 1) if self.occupancy else values
