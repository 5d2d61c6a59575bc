"""Which cells of a layer one cell of the head's map looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ...core.capture import Leaf, is_sparse
from ...core.reach import ReachProbe, grid_of
from ...core.receptive_field import Grid
from .trimmed import can_be_trimmed
from .windows import Span


@dataclass(frozen=True)
class AxisWindows:
    """The windows of a layer along one axis; all but ``cells`` in cells of the layer.

    Windows have one size, so that they can be stacked, except for those at the far end of the map,
    which have another: beyond its end the network pads, and so must a window.

    Attributes:
        cells: How many cells the layer has.
        ratio: Distance between cells of the head.
        offset: Where the head's cell 0 is centred, from the centre of the layer's cell 0.
        reach: How far the head looks.
        step: A window begins at a multiple of it, so that strided layers meet the same cells.
    """

    cells: int
    ratio: float
    offset: float
    reach: float
    step: int

    @property
    def size(self) -> int:
        """Cells of a window, a multiple of ``step``."""
        return -(-(math.floor(2 * self.reach) + self.step) // self.step) * self.step

    def span(self, cell: int) -> Span:
        """Returns the layer's cells that the head's ``cell`` looks at, and some more."""
        first = max(math.ceil(self.offset + self.ratio * cell - self.reach), 0)
        first = first // self.step * self.step
        if first + self.size < self.cells:
            return first, first + self.size
        return max(self.cells - self.size, 0) // self.step * self.step, self.cells

    def middle(self, cell: int) -> float:
        """Returns where the head's ``cell`` is centred in its window, in cells of the layer."""
        return self.offset + self.ratio * cell - self.span(cell)[0]

    def bucket(self, cell: int) -> int:
        """Tells cells apart that are at different places of their windows; mostly 0."""
        return math.floor((self.middle(cell) - self.reach + 1) / (4 * self.step))

    def local(self, cell: int) -> int:
        """Returns where the head's ``cell`` is among those that its window gives."""
        return cell - round(self.span(cell)[0] / self.ratio)


@dataclass(frozen=True)
class AxisPart:
    """Which of a map's cells matter for the head's cell, along one axis; in cells of the layer.

    Attributes:
        ratio: Distance between the map's cells.
        offset: Where its cell 0 is centred, from the centre of the layer's cell 0.
        reach: How far from the head's cell the map's cells matter, at most.
    """

    ratio: float
    offset: float
    reach: float

    def span(self, first: float, last: float, size: int) -> Span:
        """Returns the cells, out of ``size``, that matter for heads centred from first to last."""
        low = math.ceil((first - self.reach - self.offset) / self.ratio)
        high = math.floor((last + self.reach - self.offset) / self.ratio) + 1
        low = min(max(low, 0), size)
        return low, min(max(high, low), size)


@dataclass(frozen=True)
class LayerWindows:
    """The windows of a layer for the cells of a head.

    Attributes:
        y: Along y.
        x: Along x.
        parts: Of convolutions of the dense map: which cells of what they give matter, y and x.
    """

    y: AxisWindows
    x: AxisWindows
    parts: Mapping[nn.Module, tuple[AxisPart, AxisPart]] = field(default_factory=dict)

    @property
    def part(self) -> float:
        """The share of the map that a window is."""
        sizes = [min(axis.size, axis.cells) / axis.cells for axis in (self.y, self.x)]
        return sizes[0] * sizes[1]


def windows_of(probe: ReachProbe, leaf: Leaf, outputs: list[Tensor]) -> LayerWindows | str:
    """Returns the windows of a layer, or why there are none.

    Args:
        probe: What watched the pass, restarted at the layer.
        leaf: The layer in that pass.
        outputs: The head's maps, (1, C, H, W) each.
    """
    shapes = {tuple(t.shape[2:]) for t in outputs}
    if not outputs or len(shapes) != 1 or any(t.dim() != 4 for t in outputs):
        return 'the head has no maps, or maps of several sizes'
    if not probe.bounded:
        return 'a module above the layer looks at the whole frame, or in a way that is not known'
    layer, out = grid_of(probe, leaf.output), grid_of(probe, outputs[0])
    if layer is None or out is None:
        return 'the grids of the layer and the head are not known'
    reach = probe.of(outputs)
    axes = [
        _axis(layer.shape[i], layer.stride[i], layer.center[i], out.stride[i], out.center[i],
              reach[i], probe.coarsest)
        for i in (-2, -1)
    ]  # fmt: skip
    if None in axes:
        return 'the strides of layer and head do not divide each other'
    return LayerWindows(*axes, parts=_parts(probe, layer, reach))


def _parts(
    probe: ReachProbe, layer: Grid, reach: tuple[float, float]
) -> dict[nn.Module, tuple[AxisPart, AxisPart]]:
    """How far the head looks into a map is at most what it looks more than the map does."""
    found = {}
    for module, known in probe.dense.items():
        if known is None or not can_be_trimmed(module):
            continue
        grid, looks = known
        found[module] = tuple(
            AxisPart(
                grid.stride[i] / layer.stride[i],
                (grid.center[i] - layer.center[i]) / layer.stride[i],
                (reach[i] - looks[i]) / layer.stride[i],
            )
            for i in (-2, -1)
        )
    return found


def _axis(
    cells: int,
    stride: float,
    center: float,
    out_stride: float,
    out_center: float,
    reach: float,
    coarsest: float,
) -> AxisWindows | None:
    step = max(coarsest, stride, out_stride)
    if step % stride or step % out_stride:
        return None
    return AxisWindows(
        cells, out_stride / stride, (out_center - center) / stride, reach / stride,
        round(step / stride),
    )  # fmt: skip


def is_map(value: object) -> bool:
    """Whether a layer's output has cells that a window can be cut from."""
    return is_sparse(value) or (isinstance(value, Tensor) and value.dim() == 4)
