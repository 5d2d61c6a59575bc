"""Clouds to OpenPCDet's batches, with the settings of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..common.voxels import hard_voxels


@dataclass(frozen=True)
class VoxelSettings:
    """How a data set makes voxels.

    Attributes:
        size: Of a voxel, x, y, z in metres.
        limits: Lower and upper corner of the grid, metres.
        max_points: Points that a voxel holds; None: the detector's VFE takes the points.
    """

    size: tuple[float, ...]
    limits: tuple[float, ...]
    max_points: int | None

    @classmethod
    def of(cls, model: nn.Module) -> VoxelSettings:
        """Reads them from the detector's data set."""
        dataset = model.dataset
        steps = [s for s in dataset.dataset_cfg.DATA_PROCESSOR if _makes_voxels(s)]
        held = [int(step['MAX_POINTS_PER_VOXEL']) for step in steps]
        return cls(
            tuple(float(v) for v in dataset.voxel_size),
            tuple(float(v) for v in dataset.point_cloud_range),
            held[0] if held else None,
        )

    def holds(self, cloud: Tensor) -> Tensor:
        """(N,) bool: points in the grid; where the VFE takes points, as seen from above."""
        n = 2 if self.max_points is None else 3
        low = cloud.new_tensor(self.limits[:3])[:n]
        size = cloud.new_tensor(self.size)[:n]
        shape = ((cloud.new_tensor(self.limits[3:])[:n] - low) / size).round()
        cells = ((cloud[:, :n] - low) / size).floor()
        return ((cells >= 0) & (cells < shape)).all(dim=1)

    def batch(self, clouds: Sequence[Tensor]) -> dict[str, Any]:
        """Returns OpenPCDet's ``batch_dict``, in float as it moves data to the model.

        Args:
            clouds: (N, P) points of each frame, on one device.
        """
        batch = {'batch_size': len(clouds), 'points': _numbered([c.float() for c in clouds])}
        if self.max_points is None:
            return batch
        voxels, coords, counts = zip(
            *(hard_voxels(c.float(), self.size, self.limits, self.max_points) for c in clouds),
            strict=True,
        )
        return {
            **batch,
            'voxels': torch.cat(voxels),
            'voxel_coords': _numbered([c.float() for c in coords]),
            'voxel_num_points': torch.cat(counts).float(),
        }

    def full_batch(self, clouds: Sequence[Tensor]) -> dict[str, Any]:
        """Returns OpenPCDet's ``batch_dict``, of two frames where one would be a single voxel.

        ``PillarVFE`` squeezes a single pillar's axis away. Of two frames that are the same the
        second is not looked at.

        Args:
            clouds: As in ``batch``.
        """
        batch = self.batch(clouds)
        if 'voxels' in batch and len(batch['voxels']) == 1:
            return self.batch([clouds[0]] * 2)
        return batch


def _makes_voxels(step: Mapping[str, Any]) -> bool:
    return step['NAME'] == 'transform_points_to_voxels'


def _numbered(tables: Sequence[Tensor]) -> Tensor:
    """(sum of N, 1 + C) rows with the number of their frame in front."""
    return torch.cat([nn.functional.pad(t, (1, 0), value=i) for i, t in enumerate(tables)])
