"""Starting an autograd graph at a layer: its output is exchanged for a leaf.

Nothing below the layer enters the graph, so that neither its memory nor its backward pass is paid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy as shallow_copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .errors import NotApplicableError


def is_sparse(value: Any) -> bool:
    """Whether ``value`` is a sparse tensor as spconv 2 has them."""
    return all(hasattr(value, a) for a in ('features', 'indices', 'spatial_shape', 'batch_size'))


def is_sparse_convolution(module: nn.Module) -> bool:
    """Whether ``module`` is a sparse convolution of spconv, or of the copy that mmcv carries."""
    return all(hasattr(module, name) for name in ('subm', 'inverse', 'transposed', 'indice_key'))


def with_features(sparse: Any, features: Tensor) -> Any:
    """Returns a copy of a sparse tensor with other features at the same voxels.

    Args:
        sparse: As spconv has them, or the older ones that mmcv carries.
        features: (N, C).
    """
    if hasattr(sparse, 'replace_feature'):
        return sparse.replace_feature(features)
    copy = shallow_copy(sparse)
    copy.features = features
    return copy


def cell_order(indices: Tensor) -> Tensor:
    """Returns the (M,) order of rows by their cells, the first column first.

    A GPU's sparse convolutions give their voxels in an order of chance. In this one, what depends
    on the order is the same each time. Nothing here waits for the device.

    Args:
        indices: (M, D) cells, such as frame, z, y, x; rows that repeat keep their order.
    """
    keys = torch.zeros(len(indices), dtype=torch.long, device=indices.device)
    for column in indices.long().unbind(1) if len(indices) else ():
        first = column.amin()
        keys = keys * (column.amax() - first + 1) + (column - first)
    return keys.argsort(stable=True)


def sole_tensor(output: Any, name: str) -> Tensor | Any:
    """Returns the one tensor that a layer gives, sparse or dense, out of a tuple, list or dict.

    Integer tensors (the voxel coordinates that some encoders return along) do not count.

    Raises:
        NotApplicableError: If there are several tensors or none.
    """
    found = [value for value in _items(output) if _is_floating(value)]
    if len(found) == 1:
        return found[0]
    raise NotApplicableError(
        f'Layer {name!r} gives {len(found)} feature tensors: expected one. Name a module inside it.'
    )


def layer_tensor(output: Any, name: str, key: str | None = None) -> Tensor | Any:
    """Returns the tensor of a layer's output that is meant.

    Args:
        output: What the module gave.
        name: The layer's name for messages.
        key: The entry that is meant, of modules that return a dict of everything (OpenPCDet's).

    Raises:
        NotApplicableError: If there is no key, and not one tensor.
    """
    return sole_tensor(output, name) if key is None else output[key]


def _items(output: Any) -> list:
    if isinstance(output, dict):
        return [leaf for value in output.values() for leaf in _items(value)]
    if isinstance(output, (tuple, list)):
        return [leaf for value in output for leaf in _items(value)]
    return [output]


def _is_floating(value: Any) -> bool:
    if is_sparse(value):
        return True
    return isinstance(value, Tensor) and value.is_floating_point()


def exchange(output: Any, old: Any, new: Any) -> Any:
    """Returns a layer's output with ``new`` in the place of ``old``, wherever that stands in it."""
    if output is old:
        return new
    if isinstance(output, dict):
        return type(output)((key, exchange(value, old, new)) for key, value in output.items())
    if isinstance(output, tuple) and hasattr(output, '_fields'):
        return type(output)(*(exchange(value, old, new) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)(exchange(value, old, new) for value in output)
    return output


def _rows_indices(output: Any, features: Tensor) -> Tensor | None:
    """Returns the integer tensor with one row for each row of ``features``, if there is one."""
    found = [
        value
        for value in _items(output)
        if isinstance(value, Tensor) and not value.is_floating_point() and value.dim() == 2
    ]
    return next((value for value in found if len(value) == len(features)), None)


@dataclass
class Leaf:
    """What ``leaf_at`` caught; empty until the layer has run.

    Rows, where there are any with indices, stand in the order of their cells (``cell_order``),
    whatever the network's own order is.

    Attributes:
        tensor: The leaf: the layer's features, of any shape, that require a gradient.
        output: The layer's sole tensor as it was, a sparse tensor or the dense one.
        indices: (M, 4) int batch, z, y, x of the rows, if the layer is sparse or gives them along
            with its (M, C) features, else None.
        spatial_shape: Grid size of a sparse layer, else None.
    """

    tensor: Tensor | None = None
    output: Any = None
    indices: Tensor | None = None
    spatial_shape: tuple[int, ...] | None = None


@contextmanager
def leaf_at(
    module: nn.Module, name: str = '', key: str | None = None, value: Tensor | None = None
) -> Iterator[Leaf]:
    """Makes the output of ``module`` the start of the graph while the context lasts.

    Args:
        module: The layer. It must run once, and give one tensor, dense or sparse.
        name: The layer's name for messages.
        key: For modules that return a dict of everything (OpenPCDet's): the entry that is meant.
        value: Features for the network to go on with in the place of the layer's own, as an
            earlier leaf had them.

    Yields:
        A ``Leaf`` that is filled when the layer has run.

    Raises:
        NotApplicableError: From the forward pass, if the layer gives more or less than one tensor
            or runs twice, or if ``value`` has another shape.
    """
    leaf = Leaf()

    def replace(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
        if leaf.tensor is not None:
            raise NotApplicableError(
                f'Layer {name!r} ran more than once in a forward pass: expected one run. '
                'Choose a layer that is not shared.'
            )
        old = layer_tensor(output, name, key)
        features = old.features if is_sparse(old) else old
        if value is not None and value.shape != features.shape:
            raise NotApplicableError(
                f'Layer {name!r} gives features of shape {tuple(features.shape)}: expected '
                f'{tuple(value.shape)}, those of the pass before. Its voxels are others.'
            )
        leaf.output = old
        indices = _rows_indices(output, features) if key is None else None
        if is_sparse(old):
            indices, leaf.spatial_shape = old.indices, tuple(old.spatial_shape)
        order = None if indices is None else cell_order(indices)
        if order is not None:
            # A copy: VoxelNeXt's backbone multiplies indices in place later on.
            leaf.indices, features = indices[order], features[order]
        leaf.tensor = (features if value is None else value).detach().requires_grad_()
        # The network goes on with a copy: an in-place activation may follow, which a leaf refuses.
        copy = leaf.tensor.clone() if order is None else leaf.tensor[order.argsort()]
        return exchange(output, old, with_features(old, copy) if is_sparse(old) else copy)

    handle = module.register_forward_hook(replace)
    try:
        yield leaf
    finally:
        handle.remove()
