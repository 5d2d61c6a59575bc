"""Hard voxelisation of small clouds on a CPU, in the place of mmcv's operator."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..common.voxels import hard_voxels


def fast_layer(layer: Any) -> Any | None:
    """Returns what can stand in for a voxelisation layer's ``forward``, or None.

    Args:
        layer: Of MMDetection3D or mmcv. Dynamic ones, which have no such table, are left alone.
    """
    if getattr(layer, 'max_num_points', -1) < 1 or not hasattr(layer, 'point_cloud_range'):
        return None
    stock = layer.forward
    size = tuple(float(v) for v in layer.voxel_size)
    limits = tuple(float(v) for v in layer.point_cloud_range)

    def forward(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if points.is_cuda:
            return stock(points)
        return hard_voxels(points, size, limits, layer.max_num_points)

    return forward
