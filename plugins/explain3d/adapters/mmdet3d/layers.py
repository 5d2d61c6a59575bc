"""Which layers of a detector can be explained, their aliases, and where their cells lie."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import is_sparse
from ...core.errors import NotApplicableError, UnknownNameError
from ...core.receptive_field import Grid, GridBook
from ...core.session import frozen_evaluation
from ...core.structures import VoxelGeometry
from .detector import Backbone, backbone_of, voxel_layer

SPARSE, BEV, PILLARS = 'sparse', 'bev', 'pillars'


@dataclass(frozen=True)
class LayerInfo:
    """A layer that can be explained.

    Attributes:
        name: Module path.
        kind: ``'sparse'`` (rows are occupied voxels), ``'bev'`` (rows are all cells of a
            bird's-eye-view map) or ``'pillars'`` (rows are the voxel encoder's pillars or voxels).
        channels: Number of channels C.
        spatial_shape: (D, H, W) grid size in z, y, x.
        geometry: Where the cells lie.
        is_leaf: Whether the module has no submodules; such layers are not listed in messages.
        aliases: Other names: ``stride4``, ``bev``, ``neck``, ``pillars``.
    """

    name: str
    kind: str
    channels: int
    spatial_shape: tuple[int, int, int]
    geometry: VoxelGeometry
    is_leaf: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def stride(self) -> float:
        """Input voxels per cell along x."""
        return self.geometry.stride[0]


def layers(model: nn.Module) -> list[LayerInfo]:
    """Lists the layers of a detector that can be explained, in the order in which they run.

    One voxel is sent through the middle encoder, the 2D backbone and the neck to see which modules
    run, what they give, and on which grid. The model is left as found.

    Args:
        model: A voxel or pillar detector of MMDetection3D, without wrappers.

    Raises:
        NotApplicableError: If the model has no voxel grid.
    """
    backbone = backbone_of(model)
    with frozen_evaluation(model), torch.no_grad():
        return _with_aliases(_Probe(model, backbone).run(), backbone)


def find_layer(table: Sequence[LayerInfo], name: str) -> LayerInfo:
    """Returns the layer of that module path or alias.

    Raises:
        UnknownNameError: If there is none; the message lists the candidates.
    """
    for layer in table:
        if name == layer.name or name in layer.aliases:
            return layer
    aliases = [a for layer in table for a in layer.aliases]
    names = [layer.name for layer in table if not layer.is_leaf]
    close = difflib.get_close_matches(name, aliases + [layer.name for layer in table], n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise UnknownNameError(
        f'Unknown layer {name!r}: this detector has the aliases {aliases} and the module paths '
        f'{names}.{hint}'
    )


class _Probe:
    """Runs one voxel through the detector's backbone and takes notes."""

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        self.model, self.parts = model, dict(backbone.parts)
        self.middle = backbone.path_of('middle_encoder')
        layer = voxel_layer(model)
        size = [float(v) for v in layer.voxel_size]
        limits = [float(v) for v in layer.point_cloud_range]
        self.range_min, self.voxel_size = tuple(limits[:3]), tuple(size)
        extent = (round((b - a) / v) for a, b, v in zip(limits, limits[3:], size, strict=False))
        self.cells = tuple(extent)  # x, y, z
        encoder = self.parts[self.middle]
        shape = getattr(encoder, 'sparse_shape', None) or (
            1,
            getattr(encoder, 'ny', self.cells[1]),
            getattr(encoder, 'nx', self.cells[0]),
        )
        self.book = GridBook([int(n) for n in shape])
        self.input_shape = tuple(int(n) for n in shape)
        self.found: dict[str, LayerInfo] = {}

    def run(self) -> list[LayerInfo]:
        encoder = self.parts.pop(self.middle)
        voxel_encoder = next((p for p in self.parts if p.endswith('voxel_encoder')), None)
        self.parts.pop(voxel_encoder, None)
        channels = getattr(encoder, 'in_channels', None)
        if channels is None:
            raise NotApplicableError(
                f'{type(encoder).__name__} does not say its in_channels: expected a middle encoder '
                'of MMDetection3D (SparseEncoder, SparseUNet, PointPillarsScatter, ...).'
            )
        if voxel_encoder is not None:
            self._note(voxel_encoder, PILLARS, channels, Grid.of_input(self.input_shape))
        like = next(self.model.parameters())
        features = like.new_zeros(1, channels)
        middle = [0, *(n // 2 for n in self.input_shape)]
        coordinates = torch.tensor([middle], dtype=torch.int32, device=like.device)
        # SASSD trains an auxiliary network inside its encoder, which this flag leaves out.
        flags = {'test_mode': True} if _accepts(encoder.forward, 'test_mode') else {}
        value = self._watched(self.middle, encoder, features, coordinates, 1, **flags)
        for path, module in self.parts.items():
            value = self._watched(path, module, value)
        return list(self.found.values())

    def _watched(self, path: str, module: nn.Module, *inputs: Any, **flags: Any) -> Any:
        """Runs a part with a hook on each of its modules."""
        handles = [
            submodule.register_forward_hook(self._observer(f'{path}.{name}' if name else path))
            for name, submodule in module.named_modules()
        ]
        try:
            output = module(*inputs, **flags)
        finally:
            for handle in handles:
                handle.remove()
        # SparseUNet gives a dict, encoders with middle features a tuple: the map is what goes on.
        if isinstance(output, dict):
            output = output['spatial_features']
        return output[0] if path == self.middle and isinstance(output, tuple) else output

    def _observer(self, name: str) -> Any:
        def observe(module: nn.Module, inputs: tuple, output: Any) -> None:
            self._follow(module, inputs, output)
            value = _sole(output)
            if is_sparse(value):
                grid = self.book.get(value.spatial_shape)
                self._note(name, SPARSE, value.features.shape[1], grid, module)
            elif isinstance(value, Tensor) and value.dim() == 4:
                grid = self.book.get(value.shape[2:])
                self._note(name, BEV, value.shape[1], grid, module)

        return observe

    def _follow(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Enters the grid that a convolution or pooling makes out of its input's."""
        source, target = _shape(inputs[0] if inputs else None), _shape(output)
        if source is None or target is None or not hasattr(module, 'kernel_size'):
            return
        grid = self.book.get(source)
        # Submanifold and inverse convolutions stay on, or return to, a grid that is known.
        known = getattr(module, 'subm', False) or getattr(module, 'inverse', False)
        if grid is None or known or self.book.get(target) is not None:
            return
        move = grid.deconvolved if _is_transposed(module) else grid.convolved
        n = len(target)
        parameters = (module.kernel_size, module.stride, module.padding, module.dilation)
        self.book.add(move(target, *(_expand(p, n) for p in parameters)))

    def _note(
        self,
        name: str,
        kind: str,
        channels: int,
        grid: Grid | None,
        module: nn.Module | None = None,
    ) -> None:
        if grid is None:
            return
        shape, stride, center = grid.shape, grid.stride, grid.center
        if len(shape) == 2:  # A cell of a bird's-eye-view map is a column through the whole range.
            height = float(self.cells[2])
            shape, stride, center = (1, *shape), (height, *stride), (height / 2, *center)
        geometry = VoxelGeometry(
            self.range_min, self.voxel_size, tuple(stride[::-1]), tuple(center[::-1])
        )
        is_leaf = module is not None and next(module.children(), None) is None
        self.found.pop(name, None)  # A module that runs twice counts where it ran last.
        self.found[name] = LayerInfo(name, kind, channels, tuple(shape), geometry, is_leaf)


def _accepts(function: Callable, name: str) -> bool:
    return name in inspect.signature(function).parameters


def _sole(output: Any) -> Any:
    """Returns a layer's tensor; of a one-element list, the element."""
    while isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    return output


def _shape(value: Any) -> tuple[int, ...] | None:
    value = _sole(value)
    if is_sparse(value):
        return tuple(value.spatial_shape)
    if isinstance(value, Tensor) and value.dim() == 4:
        return tuple(value.shape[2:])
    return None


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d) or getattr(module, 'transposed', False) is True


def _expand(value: int | Iterable[int], n: int) -> list[int]:
    return [value] * n if isinstance(value, int) else list(value)


def _with_aliases(table: list[LayerInfo], backbone: Backbone) -> list[LayerInfo]:
    """Names the last layer at each stride before the next downsampling, and the maps."""
    aliases = _stride_aliases([layer for layer in table if layer.kind == SPARSE])
    middle = backbone.path_of('middle_encoder')
    for alias, name in (('bev', middle), ('neck', backbone.path_of('neck'))):
        aliases[name] = (*aliases.get(name, ()), alias)
    if table and table[0].kind == PILLARS and table[0].spatial_shape[0] == 1:
        aliases[table[0].name] = ('pillars',)
    return [replace(layer, aliases=aliases.get(layer.name, ())) for layer in table]


def _stride_aliases(table: list[LayerInfo]) -> dict[str, tuple[str, ...]]:
    aliases: dict[str, str] = {}
    closed: set[float] = set()
    current = None
    for layer in table:
        if current is not None and layer.geometry != current:
            closed.add(current.stride[0])
        current = layer.geometry
        if layer.stride not in closed:
            aliases[layer.stride] = layer.name
    return {name: (f'stride{stride:g}',) for stride, name in aliases.items()}
