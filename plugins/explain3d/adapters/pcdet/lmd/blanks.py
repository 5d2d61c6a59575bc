"""A batch of OpenPCDet's BevFusion without one of its sensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....core.errors import InputError

#: Which entry of a batch a modality cannot do without.
_ENTRIES = {'camera': 'camera_imgs', 'lidar': 'voxel_coords'}


def without(model: nn.Module, batch: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the batch with black images, or with one point a frame.

    A cloud without a point is refused by spconv: the point that stays is the one farthest away.

    Args:
        model: The detector; its data set knows how images were normalised.
        batch: OpenPCDet's ``batch_dict``, on the model's device, not changed.
        name: 'camera' or 'lidar'.

    Raises:
        InputError: If the modality is another, or the batch lacks it.
    """
    if name not in _ENTRIES or _ENTRIES[name] not in batch:
        raise InputError(
            f'Expected {_ENTRIES.get(name, "a sensor")!r} in the batch to blank {name!r} (one of '
            f'{list(_ENTRIES)}), received {sorted(map(str, batch))}.'
        )
    return _without_images(model, batch) if name == 'camera' else _without_points(batch)


def _without_images(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    images = batch['camera_imgs']
    settings = getattr(getattr(model, 'dataset', None), 'dataset_cfg', None) or {}
    steps = [s for s in settings.get('DATA_PROCESSOR', ()) if s['NAME'] == 'image_normalize']
    black = torch.zeros_like(images)
    for step in steps:
        mean, std = (images.new_tensor(step[key])[:, None, None] for key in ('mean', 'std'))
        black = (black - mean) / std
    return {**batch, 'camera_imgs': black}


def _without_points(batch: Mapping[str, Any]) -> dict[str, Any]:
    voxels, counts, coords = (batch[k] for k in ('voxels', 'voxel_num_points', 'voxel_coords'))
    distance = voxels[:, 0, :2].norm(dim=1)
    chosen = [_farthest(distance, coords[:, 0] == i) for i in range(int(batch['batch_size']))]
    rows = torch.stack(chosen)
    kept = voxels[rows].clone()
    kept[:, 1:] = 0
    points = torch.cat([coords[rows, :1].to(kept), kept[:, 0]], 1)
    return {
        **batch,
        'voxels': kept,
        'voxel_num_points': torch.ones_like(counts[rows]),
        'voxel_coords': coords[rows],
        'points': points,
    }


def _farthest(distance: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside, distance, -1).argmax()
