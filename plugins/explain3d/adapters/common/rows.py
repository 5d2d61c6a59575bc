"""A layer's output as rows, whether it is sparse, dense or made of pillars."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.capture import Leaf, cell_order
from ...core.errors import NotApplicableError
from ...core.structures import LayerFeatures
from .layers import BEV, PILLARS, SPARSE, LayerInfo


def layer_rows(
    layer: LayerInfo, leaf: Leaf, voxel_coords: Tensor | None
) -> tuple[LayerFeatures, Callable[[Tensor], Tensor]]:
    """Returns the layer's features as rows, and how to bring a gradient into that form.

    Rows stand in the order of their cells, z, y, x.

    Args:
        layer: The layer.
        leaf: What ran there, for a batch of one frame.
        voxel_coords: (M, 4) batch, z, y, x of the input voxels, for pillars that come without.

    Raises:
        NotApplicableError: If the grid is not the one that the layer has in the probe.
    """
    to_rows = _cells_as_rows if layer.kind == BEV else _as_it_is
    if layer.kind == SPARSE:
        coords, shape = _in_three(leaf.indices[:, 1:]), _flat_in_three(leaf.spatial_shape)
    elif layer.kind == PILLARS:
        coords, shape = leaf.indices, layer.spatial_shape
        if coords is None:
            order = cell_order(voxel_coords)
            coords, to_rows = voxel_coords[order], lambda value: value[order]
        coords = _in_three(coords[:, 1:])
    else:
        coords, shape = _grid_coords(leaf.tensor), (1, *leaf.tensor.shape[2:])
    if tuple(shape) != layer.spatial_shape:
        raise NotApplicableError(
            f'Layer {layer.name!r} has the grid {tuple(shape)}: expected '
            f'{layer.spatial_shape} as in the probe. Its voxels cannot be located.'
        )
    values = to_rows(leaf.tensor.detach())
    features = LayerFeatures(values, coords.long(), layer.spatial_shape, layer.geometry, layer.name)
    return features, to_rows


def cell_keys(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns (M,) one number for each cell.

    Args:
        coords: (M, D) coordinates of cells, z, y, x or y, x.
        shape: (D,) size of the grid.
    """
    keys = torch.zeros_like(coords[:, 0], dtype=torch.long)
    for column, size in zip(coords.unbind(1), shape, strict=True):
        keys = keys * size + column
    return keys


def require_leaf(leaf: Leaf, layer: LayerInfo, head: str) -> None:
    """Refuses a layer that did not run.

    Raises:
        NotApplicableError: If it did not.
    """
    if leaf.tensor is None:
        raise NotApplicableError(
            f'Layer {layer.name!r} did not run on the way to the head {head!r}: choose a layer '
            'below it.'
        )


def require_dependence(attributes: dict[str, Tensor], layer: LayerInfo, head: str) -> None:
    """Refuses a layer on which no attribute depends; targets tell which of them they need.

    Raises:
        NotApplicableError: If none has a graph.
    """
    if not any(value.requires_grad for value in attributes.values()):
        raise NotApplicableError(
            f'The outputs of {head!r} do not depend on layer {layer.name!r} '
            'through differentiable operations: choose another layer.'
        )


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _cells_as_rows(value: Tensor) -> Tensor:
    """(1, C, H, W) to (H * W, C)."""
    return value[0].flatten(1).T


def _grid_coords(value: Tensor) -> Tensor:
    """(H * W, 3) z, y, x of the cells of a (1, C, H, W) map."""
    height, width = value.shape[2:]
    cell = torch.arange(height * width, device=value.device)
    return torch.stack([torch.zeros_like(cell), cell // width, cell % width], 1)


def _in_three(coords: Tensor) -> Tensor:
    """(M, 3) z, y, x out of these or (M, 2) y, x."""
    if coords.shape[1] == 3:
        return coords
    return torch.cat([torch.zeros_like(coords[:, :1]), coords], 1)


def _flat_in_three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) == 3 else (1, *shape)
