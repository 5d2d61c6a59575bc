"""The layers of a detector of OpenPCDet that can be explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import is_sparse
from ...core.errors import NotApplicableError
from ...core.receptive_field import Grid
from ...core.session import frozen_evaluation
from ..common.layers import BEV, PILLARS, SPARSE, LayerInfo, with_aliases
from ..common.probe import GridProbe
from .detector import backbone_of, forgotten

#: What each part adds to the dictionary that OpenPCDet's modules hand on, the main thing first.
_GIVES = {
    'vfe': ('pillar_features', 'voxel_features'),
    'backbone_3d': (),
    'map_to_bev_module': ('spatial_features',),
    'backbone_2d': ('spatial_features_2d',),
}


def layers(model: nn.Module) -> list[LayerInfo]:
    """Lists the layers of a detector that can be explained, in the order in which they run.

    Two voxels are sent through the backbone to see which modules run, what they give, and on
    which grid. The model is left as found.

    ``stride4`` and its kin are the last layer of the 3D backbone at that stride (``x_conv3`` of
    OpenPCDet's ``VoxelBackBone8x`` and ``VoxelResBackBone8x`` is stride 4), ``pillars`` what a
    pillar encoder gives, ``bev`` the bird's-eye-view map, ``neck`` what the dense head sees.

    Args:
        model: A voxel or pillar detector of OpenPCDet, without wrappers.

    Raises:
        NotApplicableError: If the model has no voxel grid, or a part of it does not run.
    """
    parts = backbone_of(model)
    probe = _probe_of(model, parts)
    batch = _two_voxels(model)
    with frozen_evaluation(model), forgotten(model), torch.no_grad():
        for path, module in parts.items():
            before = dict(batch)
            with probe.watching(path, module), _running(model, path, module):
                batch = module(batch)
            _note_entry(probe, path, before, batch)
    found = list(probe.found.values())
    bev = 'map_to_bev_module' if 'map_to_bev_module' in parts else _last_map(found)
    return with_aliases(found, bev, 'backbone_2d')


@contextmanager
def _running(model: nn.Module, path: str, module: nn.Module) -> Iterator[None]:
    """Says which part of a detector fails, which it would do in its own pass as well."""
    try:
        yield
    except Exception as error:
        raise NotApplicableError(
            f'{type(model).__name__}.{path} ({type(module).__name__}) fails on two voxels '
            f'({type(error).__name__}: {error}): expected a detector that runs here. Does it '
            'without an explainer (--no-explainer), with this version of torch?'
        ) from error


def _probe_of(model: nn.Module, parts: Mapping[str, nn.Module]) -> GridProbe:
    dataset = model.dataset
    x, y, z = (int(n) for n in dataset.grid_size)
    # The 3D backbones have a layer of voxels more along z than the grid: 41 for 40.
    shape = getattr(parts.get('backbone_3d'), 'sparse_shape', (z, y, x))
    shape = shape if len(shape) == 3 else (z, y, x)
    low = [float(v) for v in dataset.point_cloud_range[:3]]
    return GridProbe(low, [float(v) for v in dataset.voxel_size], z, shape)


def _two_voxels(model: nn.Module) -> dict[str, Any]:
    """Returns a batch with one point in each of two neighbouring voxels amid the range."""
    dataset = model.dataset
    like = next(model.parameters())
    size = like.new_tensor([float(v) for v in dataset.voxel_size])
    low = like.new_tensor([float(v) for v in dataset.point_cloud_range[:3]])
    middle = torch.tensor([int(n) // 2 for n in dataset.grid_size], device=like.device)
    cells = torch.stack([middle, middle]) - torch.tensor([[0, 0, 0], [1, 0, 0]], device=like.device)
    points = like.new_zeros(2, dataset.point_feature_encoder.num_point_features)
    points[:, :3] = low + (cells + 0.5) * size
    batch = like.new_zeros(2, 1)
    return {
        'batch_size': 1,
        'points': torch.cat([batch, points], 1),
        'voxels': points[:, None].clone(),
        'voxel_num_points': like.new_ones(2),
        'voxel_coords': torch.cat([batch, cells.flip(1).to(batch)], 1),
    }


def _note_entry(probe: GridProbe, path: str, before: Mapping, batch: Mapping) -> None:
    """Enters the part's main result, which is an entry of the dictionary."""
    for key in _GIVES[path]:
        value = batch.get(key)
        if value is None or value is before.get(key):
            continue
        if is_sparse(value):
            grid = probe.book.get(value.spatial_shape)
            probe.note(path, SPARSE, value.features.shape[1], grid, key=key)
        elif value.dim() == 2:
            flat = input_coords(batch, key).shape[1] == 3  # batch, y, x: PillarNet's pillars
            shape = probe.input_shape[1:] if flat else probe.input_shape
            probe.note(path, PILLARS, value.shape[1], Grid.of_input(shape), key=key)
        elif value.dim() == 4:
            probe.note(path, BEV, value.shape[1], probe.book.get(value.shape[2:]), key=key)
        return


def _last_map(table: list[LayerInfo]) -> str | None:
    """Returns the path of the last bird's-eye-view map, sparse or dense, of the 3D backbone."""
    flat = [layer.name for layer in table if layer.spatial_shape[0] == 1]
    return next((name for name in reversed(flat) if name.startswith('backbone_3d')), None)


def input_coords(batch: Mapping[str, Any], key: str | None) -> Tensor | None:
    """Returns (M, 3 or 4) batch and z, y, x or y, x of the pillars or voxels of ``batch[key]``."""
    if key == 'pillar_features' and 'pillar_coords' in batch:
        return batch['pillar_coords']
    return batch.get('voxel_coords')
