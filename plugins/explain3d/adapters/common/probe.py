"""Following the grid of a detector's voxels through its modules, by running them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...core.capture import is_sparse
from ...core.receptive_field import Grid, GridBook
from ...core.structures import VoxelGeometry
from .layers import BEV, SPARSE, LayerInfo


class GridProbe:
    """Takes notes of the layers that run, what they give, and on which grid.

    Args:
        range_min: Lower corner (x, y, z) of the point-cloud range, metres.
        voxel_size: Size (x, y, z) of an input voxel, metres.
        height: Input voxels along z.
        shape: (D, H, W) of the input voxels as the network has them.

    Attributes:
        found: The layers that can be explained, in the order in which they ran.
    """

    def __init__(
        self,
        range_min: Sequence[float],
        voxel_size: Sequence[float],
        height: float,
        shape: Sequence[int],
    ) -> None:
        self.range_min, self.voxel_size = tuple(range_min), tuple(voxel_size)
        self.height = float(height)
        self.input_shape = tuple(int(n) for n in shape)
        self.book = GridBook(self.input_shape)
        self.found: dict[str, LayerInfo] = {}

    @contextmanager
    def watching(self, path: str, module: nn.Module) -> Iterator[None]:
        """Watches every module of a part of the detector while it runs.

        Args:
            path: The part's module path.
            module: The part.
        """
        handles = [
            submodule.register_forward_hook(self._observer(f'{path}.{name}' if name else path))
            for name, submodule in module.named_modules()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def note(
        self,
        name: str,
        kind: str,
        channels: int,
        grid: Grid | None,
        module: nn.Module | None = None,
        key: str | None = None,
    ) -> None:
        """Enters a layer, arguments as in ``LayerInfo``.

        Without a grid, it is none that can be explained.
        """
        if grid is None:
            return
        shape, stride, center = grid.shape, grid.stride, grid.center
        if len(shape) == 2:  # A cell of a bird's-eye-view map is a column through the whole range.
            shape, stride, center = (
                (1, *shape),
                (self.height, *stride),
                (self.height / 2, *center),
            )
        geometry = VoxelGeometry(
            self.range_min, self.voxel_size, tuple(stride[::-1]), tuple(center[::-1])
        )
        is_leaf = module is not None and next(module.children(), None) is None
        self.found.pop(name, None)  # A module that runs twice counts where it ran last.
        self.found[name] = LayerInfo(name, kind, channels, tuple(shape), geometry, is_leaf, key=key)

    def _observer(self, name: str) -> Callable:
        def observe(module: nn.Module, inputs: tuple, output: Any) -> None:
            self._follow(module, inputs, output)
            value = _sole(output)
            if is_sparse(value):
                grid = self.book.get(value.spatial_shape)
                self.note(name, SPARSE, value.features.shape[1], grid, module)
            elif isinstance(value, Tensor) and value.dim() == 4:
                grid = self.book.get(value.shape[2:])
                self.note(name, BEV, value.shape[1], grid, module)

        return observe

    def _follow(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Enters the grid that a convolution, pooling or padding makes out of its input's."""
        source, target = _shape(inputs[0] if inputs else None), _shape(output)
        if source is None or target is None:
            return
        grid = self.book.get(source)
        if isinstance(module, nn.ZeroPad2d) and grid is not None:
            left, _, top, _ = module.padding
            self.book.add(grid.padded(target, (top, left)))
        if not hasattr(module, 'kernel_size'):
            return
        # Submanifold and inverse convolutions stay on, or return to, a grid that is known.
        known = getattr(module, 'subm', False) or getattr(module, 'inverse', False)
        if grid is None or known or self.book.get(target) is not None:
            return
        move = grid.deconvolved if _is_transposed(module) else grid.convolved
        n = len(target)
        parameters = (module.kernel_size, module.stride, module.padding, module.dilation)
        self.book.add(move(target, *(_expand(p, n) for p in parameters)))


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
