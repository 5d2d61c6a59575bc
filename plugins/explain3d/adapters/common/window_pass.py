"""A pass of a detector over a batch of windows of a layer, with a graph that starts there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import Leaf, exchange, is_sparse, layer_tensor
from ...core.session import frozen_evaluation, overridden
from .black_box import DetectorBlackBox
from .candidates import attributes_of
from .first_pass import Raw
from .layer_windows import AxisPart, LayerWindows
from .layers import LayerInfo
from .layers_above import LayerAbove
from .nested import leaves, mapped
from .replay import Replays
from .spconv_compat import differentiable_sparse_convolutions
from .trimmed import size_of, trimmed
from .windows import Spans

#: A map below the layer that is cut has a multiple of so many cells: strides must divide it.
_DIVISOR = 16


@dataclass
class Batch:
    """Detections whose windows have one size.

    Attributes:
        members: Numbers of the detections.
        spans: The window of each, along y and x.
    """

    members: list[int]
    spans: list[Spans]


@dataclass
class Cut:
    """The features of a batch's windows.

    Attributes:
        leaf: The features, where the graph starts.
        output: Makes what the layer gives out of them.
        places: Of each window, (rows,) which of the frame's rows it has, for a sparse layer.
        starts: Where the rows of each window begin, and the end of the last, likewise.
    """

    leaf: Tensor
    output: Callable[[], Any]
    places: list[Tensor]
    starts: list[int]


class WindowPass:
    """Runs windows of one frame.

    Args:
        model: The detector.
        module: The explained layer.
        info: What is known of it.
        box: The detector as a black box.
        windows: What the head's cells look at.
        layer: The layer in the frame's pass.
        raw: The head's raw outputs in that pass, without a graph.
        replay: What knows the detections' candidates and cells.
        points: (N, P) the frame's points.
    """

    def __init__(
        self,
        model: nn.Module,
        module: nn.Module,
        info: LayerInfo,
        box: DetectorBlackBox,
        windows: LayerWindows,
        layer: Leaf,
        raw: Raw,
        replay: Replays,
        points: Tensor,
    ) -> None:
        self.model, self.module, self.info = model, module, info
        self.box, self.windows, self.layer = box, windows, layer
        self.cells, self._index = replay.cells, replay.index
        #: The same on the host, which plans by them.
        self.places: list[list[int]] = replay.cells.tolist()
        self._labels = replay.detections.labels
        self._raw = raw
        # What is below the layer runs on a point for each window, any within the range.
        self._point = _nearest(points, replay.detections.boxes[0])

    def run(self, batch: Batch, above: Sequence[LayerAbove] = ()) -> tuple[Cut, dict[str, Tensor]]:
        """Returns the windows' features, and the (n,) attributes of the batch's detections.

        Args:
            batch: The windows.
            above: Layers that are to see what they give.
        """
        sparse = is_sparse(self.layer.output)
        cut = (self._sparse_cut if sparse else self._dense_cut)(batch)

        def swap(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
            old = layer_tensor(output, self.info.name, self.info.key)
            return exchange(output, old, cut.output())

        height, width = (b - a for a, b in batch.spans[0])
        with ExitStack() as stack:
            stack.enter_context(frozen_evaluation(self.model))
            stack.enter_context(differentiable_sparse_convolutions(self.model))
            if not sparse and self.box.encoder is not self.module:
                # What is below the layer runs on something as small as a window.
                small = _cropping(height, width, self.layer.tensor.shape[2:])
                stack.enter_context(_hooked(self.box.encoder, small))
            for module, forward in self._trims(batch):
                stack.enter_context(overridden(module, 'forward', forward))
            stack.enter_context(_hooked(self.module, swap))
            for layer in above:
                stack.enter_context(layer.watching())
            raw = self.box.raw([self._point[None]] * len(batch.members))
            return cut, self._decoded(raw, batch)

    def _trims(self, batch: Batch) -> Iterator[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
        """Yields convolutions of the dense map, and what computes only what matters of them."""
        windows = self.windows
        cells = [self.places[k] for k in batch.members]
        middles = [
            [axis.middle(cell[i]) for cell in cells]
            for i, axis in enumerate((windows.y, windows.x))
        ]
        ends = [(min(some), max(some)) for some in middles]

        def forward(module: nn.Module, parts: Sequence[AxisPart], value: Tensor) -> Tensor:
            sizes = size_of(module, tuple(value.shape[2:]))
            wanted = tuple(
                part.span(*end, size) for part, end, size in zip(parts, ends, sizes, strict=True)
            )
            if any(b == a for a, b in wanted):  # The layer below the explained one.
                return type(module).forward(module, value)
            return trimmed(module, value, wanted)

        for module, parts in windows.parts.items():
            yield module, partial(forward, module, parts)

    def _sparse_cut(self, batch: Batch) -> Cut:
        old, indices = self.layer.output, self.layer.indices
        # All windows at once: each question for a number of rows waits for the device.
        ends = torch.tensor(batch.spans, device=indices.device, dtype=indices.dtype)
        (y0, y1), (x0, x1) = (ends[:, axis].T[..., None] for axis in (0, 1))
        y, x = indices[:, -2], indices[:, -1]
        number, place = ((y >= y0) & (y < y1) & (x >= x0) & (x < x1)).nonzero(as_tuple=True)
        counts = torch.zeros(len(ends), dtype=torch.long, device=indices.device)
        counts = counts.index_add_(0, number, torch.ones_like(number)).tolist()
        where = indices[place]
        where[:, 0] = number.to(where)
        where[:, -2] -= y0[number, 0]
        where[:, -1] -= x0[number, 0]
        leaf = self.layer.tensor.detach()[place].requires_grad_()
        places, starts = list(place.split(counts)), [0, *accumulate(counts)]
        shape = [*self.layer.spatial_shape[:-2], *(b - a for a, b in batch.spans[0])]

        def new() -> Any:
            return type(old)(leaf.clone(), where, shape, len(batch.members))

        return Cut(leaf, new, places, starts)

    def _dense_cut(self, batch: Batch) -> Cut:
        value = self.layer.tensor.detach()
        cuts = [value[:, :, y0:y1, x0:x1] for (y0, y1), (x0, x1) in batch.spans]
        leaf = torch.cat(cuts).requires_grad_()
        return Cut(leaf, leaf.clone, [], [])

    def _decoded(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """Reads the attributes off the cells in the windows' middles.

        The cells are put into the frame's own maps, at their places: decoding needs anchors.
        Detections of one cell cannot be in one map.
        """
        windows = self.windows
        device = self.cells.device
        there = [self.places[k] for k in batch.members]
        local = [(windows.y.local(r), windows.x.local(c)) for r, c in there]
        plan = [[k, *at] for k, at in zip(batch.members, local, strict=True)]
        plan = torch.tensor(plan, device=device)
        members, local = plan[:, 0], plan[:, 1:]
        cells = self.cells[members]
        found: list[tuple[Tensor, dict[str, Tensor]]] = []
        turns = _turns(there)
        for turn in turns:
            every = len(turns) == 1
            numbers = torch.arange(len(turn), device=device) if every else cells.new_tensor(turn)
            filled = _filled(self._raw, raw, numbers, local[numbers], cells[numbers])
            ones = members[numbers]
            candidates = self.box.candidates_of(filled)
            found.append(
                (numbers, attributes_of(candidates, self._index[ones], self._labels[ones]))
            )
        order = torch.cat([numbers for numbers, _ in found]).argsort()
        return {name: torch.cat([part[name] for _, part in found])[order] for name in found[0][1]}


def _nearest(points: Tensor, box: Tensor) -> Tensor:
    """Returns the (P,) point that is nearest to a box's centre: one within the range."""
    return points[(points[:, :3] - box[:3].to(points)).square().sum(1).argmin()]


def _filled(frame: Raw, windows: Raw, numbers: Tensor, local: Tensor, cells: Tensor) -> Raw:
    """Returns the frame's maps with some cells taken from windows."""
    parts = iter(leaves(windows))

    def fill(value: Tensor) -> Tensor:
        part = next(parts)
        full = value.clone()
        full[0, :, cells[:, 0], cells[:, 1]] = part[numbers, :, local[:, 0], local[:, 1]].T
        return full

    return mapped(frame, fill)


def _turns(cells: list[list[int]]) -> list[list[int]]:
    """Shares numbers out so that no two of one share have the same cell."""
    turns: list[list[int]] = []
    seen: dict[tuple[int, ...], int] = {}
    for number, cell in enumerate(cells):
        turn = seen[tuple(cell)] = seen.get(tuple(cell), -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(number)
    return turns


@contextmanager
def _hooked(module: nn.Module, hook: Callable) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _cropping(height: int, width: int, shape: Sequence[int]) -> Callable:
    """A hook that leaves the share of a map that a (height, width) window has of ``shape``."""

    def crop(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        sizes = [
            -(-full * part // whole // _DIVISOR) * _DIVISOR
            for full, part, whole in zip(output.shape[2:], (height, width), shape, strict=True)
        ]
        return output[:, :, : sizes[0], : sizes[1]]

    return crop
