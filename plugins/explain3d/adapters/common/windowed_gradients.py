"""The gradients of many detections by few backward passes: each in its own window, stacked.

A detection of a one-stage head is decoded from one cell of the head's map, and that cell looks at
a window of the layer. The network above the layer runs once more, on a batch of such windows
instead of one frame; the sum of all detections' attributes then has, in window k, the gradient of
detection k alone. What is outside of the window has none. Where the network cannot be cut that way
(attention, norms over the frame, a second stage), or where a window does not give back the values
of the frame, each detection has a backward pass of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...core.capture import Leaf, exchange, is_sparse, sole_tensor
from ...core.gradients import gradient_at
from ...core.reach import ReachProbe
from ...core.session import frozen_evaluation, overridden
from .candidates import Candidates, attributes_of
from .layer_windows import AxisPart, LayerWindows, Span, is_map, windows_of
from .layers import LayerInfo
from .spconv_compat import differentiable_sparse_convolutions
from .trimmed import size_of, trimmed

_LOG = logging.getLogger('explain3d')
#: A window that is a larger part of the map saves nothing.
_LARGEST_PART = 0.5
#: Windows of a batch together are at most as large as so many frames.
_BATCH = 1.0
#: A map below the layer that is cut has a multiple of so many cells: strides must divide it.
_DIVISOR = 16
#: How far a window's values may be from the frame's, relative to 1 + |value|: rounding is below.
_TOLERANCE = 1e-3

#: The head's raw outputs, maps of shape (B, C, H, W) in nested lists and dicts.
Raw = Any


@dataclass(frozen=True)
class Passes:
    """How the adapter runs its detector.

    Attributes:
        raw: Returns the head's raw outputs for a list of clouds.
        candidates: Returns the candidates of the raw outputs of one frame.
        encoder: What gives the bird's-eye-view map.
    """

    raw: Callable[[Sequence[Tensor]], Raw]
    candidates: Callable[[Raw], Candidates]
    encoder: nn.Module


class GradientWindows:
    """Makes the gradient sources of a detector's frames.

    Args:
        model: The detector.
        layer: The explained layer.
        passes: How to run it; None where its head has no maps.
    """

    def __init__(self, model: nn.Module, layer: LayerInfo, passes: Passes | None) -> None:
        self.model, self.layer, self.passes = model, layer, passes
        self.module = model.get_submodule(layer.name)
        self.windows: LayerWindows | None = None
        self._probe: ReachProbe | None = None
        self._open = passes is not None
        if any(getattr(module, 'inverse', False) for module in model.modules()):
            self.give_up('a layer takes its voxels from another one')

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches a pass over a frame, if how far the head looks is not known yet."""
        if not self._open or self.windows is not None:
            yield
            return
        self._probe = probe = ReachProbe()
        with probe.watching(self.model):
            handle = self.module.register_forward_hook(lambda *_: probe.restart())
            try:
                yield
            finally:
                handle.remove()

    def give_up(self, reason: str) -> None:
        """From now on every detection has a pass of its own."""
        if self._open:
            _LOG.info(
                'Gradients at %s: one backward pass for each detection, since %s.',
                self.layer.name, reason,
            )  # fmt: skip
        self._open = False

    def source(
        self,
        leaf: Leaf,
        rows: Callable[[Tensor], Tensor],
        raw: Raw,
        cells: Tensor | None,
        index: Tensor,
        labels: Tensor,
        attributes: dict[str, Tensor],
        point: Tensor,
    ) -> WindowedGradients | None:
        """Returns the source of a frame's gradients, or None where windows do not serve.

        Args:
            leaf: The layer in the frame's pass.
            rows: Brings a gradient of the leaf's shape into rows.
            raw: The head's raw outputs in that pass.
            cells: (K, 2) row and column of the head's cell of each detection.
            index: (K,) candidates of the detections.
            labels: (K,) their labels.
            attributes: Their (K,) attributes in that pass.
            point: (P,) a point within the detector's range, any.
        """
        if not self._open or len(index) == 0:
            return None
        if cells is None:
            self.give_up('the head has no cells on one map')
            return None
        if self.windows is None:
            self._learn(leaf, raw)
        if not self._open:
            return None
        return WindowedGradients(self, leaf, rows, raw, cells, index, labels, attributes, point)

    def _learn(self, leaf: Leaf, raw: Raw) -> None:
        found: LayerWindows | str = 'the layer has no cells'
        if self.layer.key is None and is_map(leaf.output):
            found = windows_of(self._probe, leaf, leaves(raw))
        self._probe = None
        if isinstance(found, str):
            self.give_up(found)
        elif found.part > _LARGEST_PART:
            self.give_up(f'a detection looks at {found.part:.0%} of the map')
        else:
            self.windows = found


@dataclass
class _Batch:
    """Detections whose windows have one size.

    Attributes:
        members: Numbers of the detections.
        spans: The window of each, along y and x.
    """

    members: list[int]
    spans: list[tuple[Span, Span]]


@dataclass
class _Run:
    """A pass over a batch of windows.

    Attributes:
        batch: The batch.
        leaf: The windows' features, where the graph starts.
        attributes: (n,) attributes of the batch's detections.
        places: Of each window, (rows,) which of the frame's rows it has, for a sparse layer.
        starts: Where the rows of each window begin, and the end of the last.
        found: (gradient by what it is of.)
    """

    batch: _Batch
    leaf: Tensor
    attributes: dict[str, Tensor]
    places: list[Tensor]
    starts: list[int]
    found: dict[tuple[tuple[str, ...], bool], Tensor | None]


class WindowedGradients:
    """See ``core.gradients.GradientSource``; ``GradientWindows.source`` makes it."""

    def __init__(
        self,
        owner: GradientWindows,
        leaf: Leaf,
        rows: Callable[[Tensor], Tensor],
        raw: Raw,
        cells: Tensor,
        index: Tensor,
        labels: Tensor,
        attributes: dict[str, Tensor],
        point: Tensor,
    ) -> None:
        self.leaf, self.attributes = leaf.tensor, attributes
        self._owner, self._layer, self._rows = owner, leaf, rows
        self._raw = _mapped(raw, Tensor.detach)
        self._cells, self._index, self._labels = cells, index, labels
        self._point = point
        self._batches = list(self._planned())
        self._batch_of = {k: batch for batch in self._batches for k in batch.members}
        self.order = [k for batch in self._batches for k in batch.members]
        self._run: _Run | None = None
        self._failed = False

    def gradient(self, k: int, names: tuple[str, ...], signed: bool) -> Tensor | None:
        """Returns the (M, C) gradient of detection k, see ``GradientSource``."""
        if not self._failed and (self._run is None or self._run.batch is not self._batch_of[k]):
            self._run = None  # Its graph goes before the next one comes.
            self._run = self._attempt(self._batch_of[k])
        if self._failed:
            found = gradient_at(self.leaf, self.attributes, k, names, signed)
            return found if found is None else self._rows(found)
        run, key = self._run, (names, signed)
        if key not in run.found:
            run.found[key] = gradient_at(run.leaf, run.attributes, slice(None), names, signed)
        found = run.found[key]
        return None if found is None else self._in_frame(run, run.batch.members.index(k), found)

    def _planned(self) -> Iterator[_Batch]:
        """Groups the detections by the size of their windows, in batches of bounded size."""
        windows, groups = self._owner.windows, {}
        for k, (row, column) in enumerate(self._cells.tolist()):
            spans = windows.y.span(row), windows.x.span(column)
            size = tuple(b - a for a, b in spans)
            # Windows at the ends of the map have their detections elsewhere.
            place = windows.y.bucket(row), windows.x.bucket(column)
            groups.setdefault((size, place), []).append((k, spans))
        area = windows.y.cells * windows.x.cells
        for ((height, width), _), members in groups.items():
            count = max(1, int(_BATCH * area / (height * width)))
            for start in range(0, len(members), count):
                part = members[start : start + count]
                yield _Batch([k for k, _ in part], [spans for _, spans in part])

    def _attempt(self, batch: _Batch) -> _Run | None:
        """Runs a batch of windows; whatever goes wrong, there is another way to the gradients."""
        try:
            run = self._over(batch)
        except Exception as error:  # A network may cut itself in ways that nobody thought of.
            self._owner.give_up(f'it cannot be run on windows ({type(error).__name__}: {error})')
            self._failed = True
            return None
        worst = _deviation(run.attributes, self.attributes, batch.members)
        if not worst <= _TOLERANCE:
            self._owner.give_up(
                f'windows give other values than the frame (by {worst:.1e} of 1 + |value|)'
            )
            self._failed = True
        return run

    def _over(self, batch: _Batch) -> _Run:
        owner, passes = self._owner, self._owner.passes
        sparse = is_sparse(self._layer.output)
        cut = self._sparse_windows if sparse else self._dense_windows
        leaf, new, places, starts = cut(batch)

        def swap(_module: nn.Module, _inputs: tuple, output: Any) -> Any:
            return exchange(output, sole_tensor(output, owner.layer.name), new())

        height, width = (b - a for a, b in batch.spans[0])
        with ExitStack() as stack:
            stack.enter_context(frozen_evaluation(owner.model))
            stack.enter_context(differentiable_sparse_convolutions(owner.model))
            if not sparse and passes.encoder is not owner.module:
                # What is below the layer runs on something as small as a window.
                small = _cropping(height, width, self.leaf.shape[2:])
                stack.enter_context(_hooked(passes.encoder, small))
            for module, forward in self._trims(batch):
                stack.enter_context(overridden(module, 'forward', forward))
            stack.enter_context(_hooked(owner.module, swap))
            raw = passes.raw([self._point[None]] * len(batch.members))
            attributes = self._decoded(raw, batch)
        return _Run(batch, leaf, attributes, places, starts, {})

    def _trims(self, batch: _Batch) -> Iterator[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
        """Yields convolutions of the dense map, and what computes only what matters of them."""
        windows = self._owner.windows
        cells = self._cells[batch.members].tolist()
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

    def _sparse_windows(self, batch: _Batch) -> tuple[Tensor, Callable, list[Tensor], list[int]]:
        old, indices = self._layer.output, self._layer.indices
        places, parts, starts = [], [], [0]
        for number, ((y0, y1), (x0, x1)) in enumerate(batch.spans):
            y, x = indices[:, -2], indices[:, -1]
            place = ((y >= y0) & (y < y1) & (x >= x0) & (x < x1)).nonzero().flatten()
            part = indices[place].clone()
            part[:, 0] = number
            part[:, -2] -= y0
            part[:, -1] -= x0
            places.append(place)
            parts.append(part)
            starts.append(starts[-1] + len(place))
        leaf = self.leaf.detach()[torch.cat(places)].requires_grad_()
        where = torch.cat(parts)
        shape = [*self._layer.spatial_shape[:-2], *(b - a for a, b in batch.spans[0])]

        def new() -> Any:
            return type(old)(leaf.clone(), where, shape, len(batch.members))

        return leaf, new, places, starts

    def _dense_windows(self, batch: _Batch) -> tuple[Tensor, Callable, list[Tensor], list[int]]:
        value = self.leaf.detach()
        cuts = [value[:, :, y0:y1, x0:x1] for (y0, y1), (x0, x1) in batch.spans]
        leaf = torch.cat(cuts).requires_grad_()
        return leaf, leaf.clone, [], []

    def _decoded(self, raw: Raw, batch: _Batch) -> dict[str, Tensor]:
        """Reads the attributes off the cells in the windows' middles.

        The cells are put into the frame's own maps, at their places: decoding needs anchors.
        Detections of one cell cannot be in one map.
        """
        windows = self._owner.windows
        device = self._cells.device
        members = torch.tensor(batch.members, device=device)
        cells = self._cells[members]
        local = torch.tensor(
            [[windows.y.local(r), windows.x.local(c)] for r, c in cells.tolist()], device=device
        )
        found: list[tuple[Tensor, dict[str, Tensor]]] = []
        for turn in _turns(cells.tolist()):
            numbers = torch.tensor(turn, device=device)
            filled = _filled(self._raw, raw, numbers, local[numbers], cells[numbers])
            ones = members[numbers]
            candidates = self._owner.passes.candidates(filled)
            found.append(
                (numbers, attributes_of(candidates, self._index[ones], self._labels[ones]))
            )
        order = torch.cat([numbers for numbers, _ in found]).argsort()
        return {name: torch.cat([part[name] for _, part in found])[order] for name in found[0][1]}

    def _in_frame(self, run: _Run, number: int, found: Tensor) -> Tensor:
        """Puts the gradient of one window where the window is; (M, C)."""
        if run.places:
            gradient = found.new_zeros(self.leaf.shape)
            gradient[run.places[number]] = found[run.starts[number] : run.starts[number + 1]]
        else:
            gradient = found.new_zeros(self.leaf.shape)
            (y0, y1), (x0, x1) = run.batch.spans[number]
            gradient[0, :, y0:y1, x0:x1] = found[number]
        return self._rows(gradient)


def nearest(points: Tensor, box: Tensor) -> Tensor:
    """Returns the (P,) point that is nearest to a box's centre: one within the range."""
    return points[(points[:, :3] - box[:3].to(points)).square().sum(1).argmin()]


def leaves(raw: Raw) -> list[Tensor]:
    """Returns the tensors of nested lists and dicts."""
    found: list[Tensor] = []
    _mapped(raw, lambda t: (found.append(t), t)[1])
    return found


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(part, function) for part in value)
    return function(value) if isinstance(value, Tensor) else value


def _filled(frame: Raw, windows: Raw, numbers: Tensor, local: Tensor, cells: Tensor) -> Raw:
    """Returns the frame's maps with some cells taken from windows."""
    parts = iter(leaves(windows))

    def fill(value: Tensor) -> Tensor:
        part = next(parts)
        full = value.clone()
        full[0, :, cells[:, 0], cells[:, 1]] = part[numbers, :, local[:, 0], local[:, 1]].T
        return full

    return _mapped(frame, fill)


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


@torch.no_grad()
def _deviation(
    windows: dict[str, Tensor], frame: dict[str, Tensor], members: Sequence[int]
) -> float:
    """Returns the largest |difference| / (1 + |value|) over the attributes; NaN if one is NaN."""
    pairs = [(windows[name], frame[name][list(members)]) for name in windows]
    return float(torch.stack([((a - b).abs() / (1 + b.abs())).amax() for a, b in pairs]).amax())


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
