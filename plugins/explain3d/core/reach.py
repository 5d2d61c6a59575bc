"""How far a network's outputs look, found by watching a forward pass.

Each module with a kernel widens the view of what comes after it: a convolution's by
stride * dilation * (kernel - 1) / 2 input cells to either side, with the stride of its input; a
transposed convolution's by the same with the stride of its output. Branches are told apart by
their tensors. A tensor that no module gave (a sum, a concatenation, a new sparse tensor) is taken
to look as far as anything before it: a bound from above. Resampling by a function
(``torch.nn.functional.interpolate``) is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .capture import is_sparse
from .receptive_field import Grid, GridBook

#: Modules that work on each cell by itself (in eval mode), by the beginning of their names.
_POINTWISE = (
    'BatchNorm', 'SyncBatchNorm', 'NaiveSyncBatchNorm', 'Dropout', 'Identity', 'Linear', 'ReLU',
    'LeakyReLU', 'GELU', 'SiLU', 'Sigmoid', 'Tanh', 'Hardswish', 'ELU', 'PReLU', 'Softmax',
)  # fmt: skip
#: Modules that look anywhere, or resample: not bounded.
_UNBOUNDED = (
    'Deform', 'ModulatedDeform', 'Adaptive', 'GroupNorm', 'InstanceNorm', 'LayerNorm', 'Upsample',
    'MultiheadAttention',
)  # fmt: skip


class ReachProbe:
    """Watches one forward pass and tells how far tensors look, in cells of the input grid.

    The input grid is that of the first module with a kernel.

    Attributes:
        book: The grids that the pass went through.
        bounded: Whether every module with parameters is one whose view is known.
        coarsest: Largest stride of a grid.
        dense: Of each module with a kernel that gave a dense map: the map's grid, and how far it
            looks; None for a module that ran more than once.
    """

    def __init__(self) -> None:
        self.book: GridBook | None = None
        self.bounded = True
        self.coarsest = 1.0
        self.dense: dict[nn.Module, tuple[Grid, tuple[float, float]] | None] = {}
        self._known: dict[int, tuple[Any, tuple[float, float]]] = {}
        self._largest = (0.0, 0.0)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[ReachProbe]:
        """Watches ``model`` while the context lasts."""
        handles = [module.register_forward_hook(self._see) for module in model.modules()]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def of(self, value: Any) -> tuple[float, float]:
        """Returns how far a tensor (or the farthest of a nest of them) looks along y and x."""
        found = [self._of_one(item) for item in _tensors(value)]
        return _farthest(found) if found else self._largest

    def restart(self) -> None:
        """Counts from here on: what there is now looks at itself only, and has the finest grid."""
        self._known.clear()
        self.dense.clear()
        self._largest, self.coarsest = (0.0, 0.0), 1.0

    def forget(self) -> None:
        """Lets go of the pass's tensors, which are kept so that no two have one identity."""
        self._known.clear()

    def _of_one(self, item: Any) -> tuple[float, float]:
        known = self._known.get(id(item))
        return self._largest if known is None else known[1]

    def _see(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        outputs = _tensors(output)
        if next(module.children(), None) is not None:
            # A container: what its parts gave is known; what it made itself looks the farthest.
            for item in outputs:
                self._keep(item, self._of_one(item))
            return
        reach = _farthest([self._of_one(item) for item in _tensors(inputs)] or [self._largest])
        if hasattr(module, 'kernel_size'):
            wider = self._widening(module, inputs, output)
            reach = (reach[0] + wider[0], reach[1] + wider[1])
            self._note(module, output, reach)
        elif not type(module).__name__.startswith(_POINTWISE) and _has_parameters(module):
            self.bounded = False
        if type(module).__name__.startswith(_UNBOUNDED):
            self.bounded = False
        self._largest = _farthest([self._largest, reach])
        for item in outputs:
            self._keep(item, reach)

    def _note(self, module: nn.Module, output: Any, reach: tuple[float, float]) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            grid, again = grid_of(self, output), module in self.dense
            self.dense[module] = None if again or grid is None else (grid, reach)

    def _keep(self, item: Any, reach: tuple[float, float]) -> None:
        self._known[id(item)] = (item, reach)

    def _widening(self, module: nn.Module, inputs: tuple, output: Any) -> tuple[float, float]:
        """Returns what one convolution or pooling adds along y and x."""
        source, target = _shape(inputs[0] if inputs else None), _shape(output)
        if source is None or target is None:
            self.bounded = False
            return 0.0, 0.0
        if self.book is None:
            self.book = GridBook(source if len(source) == 3 else (1, *source))
        grid, n = self.book.get(source), len(target)
        if grid is None:
            self.bounded = False
            return 0.0, 0.0
        parameters = [
            _expand(getattr(module, name, 1), n)
            for name in ('kernel_size', 'stride', 'padding', 'dilation')
        ]
        transposed = isinstance(module, nn.ConvTranspose2d) or bool(
            getattr(module, 'transposed', False)
        )
        known = getattr(module, 'subm', False) or getattr(module, 'inverse', False)
        move = grid.deconvolved if transposed else grid.convolved
        moved = grid if known else move(target, *parameters)
        self.book.add(moved)
        placed = self.book.get(target)
        if placed.stride != moved.stride:
            self.bounded = False
            return 0.0, 0.0
        self.coarsest = max(self.coarsest, *placed.stride[-2:])
        stride = moved.stride if transposed else grid.stride
        kernel, dilation = parameters[0], parameters[3]
        # A shape that was there before keeps its cells where they were: its cells look so much
        # farther to one side.
        wider = [
            j * d * (k - 1) / 2 + abs(a - b)
            for j, d, k, a, b in zip(
                stride, dilation, kernel, placed.center, moved.center, strict=True
            )
        ]
        return wider[-2], wider[-1]


def grid_of(probe: ReachProbe, value: Any) -> Grid | None:
    """Returns the bird's-eye-view grid of a tensor, if the probe's pass went through it."""
    shape = _shape(value)
    return None if shape is None or probe.book is None else probe.book.get(shape[-2:])


def _farthest(reaches: list[tuple[float, float]]) -> tuple[float, float]:
    return max(r[0] for r in reaches), max(r[1] for r in reaches)


def _tensors(value: Any) -> list:
    if isinstance(value, dict):
        return [item for part in value.values() for item in _tensors(part)]
    if isinstance(value, (tuple, list)):
        return [item for part in value for item in _tensors(part)]
    return [value] if is_sparse(value) or isinstance(value, Tensor) else []


def _shape(value: Any) -> tuple[int, ...] | None:
    found = _tensors(value)
    if not found:
        return None
    value = found[0]
    if is_sparse(value):
        return tuple(value.spatial_shape)
    return tuple(value.shape[2:]) if value.dim() in (4, 5) else None


def _expand(value: Any, n: int) -> list[int]:
    return [int(value)] * n if isinstance(value, (int, float)) else [int(v) for v in value][-n:]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
