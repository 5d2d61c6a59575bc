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
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...core.capture import Leaf
from ...core.gradients import gradient_at
from ...core.reach import ReachProbe
from .black_box import DetectorBlackBox
from .first_pass import FirstPass, Raw, Recording
from .layer_windows import LayerWindows, is_map, windows_of
from .layers import LayerInfo
from .nested import leaves
from .replay import Replays
from .window_pass import Batch, Cut, WindowPass

_LOG = logging.getLogger('explain3d')
#: A window that is a larger part of the map saves nothing.
_LARGEST_PART = 0.5
#: Windows of a batch together are at most as large as so many frames.
_BATCH = 1.0
#: How far a window's values may be from the frame's, relative to 1 + |value|: rounding is below.
_TOLERANCE = 1e-3


class GradientWindows:
    """Makes the gradient sources of a detector's frames.

    Args:
        model: The detector.
        layer: The explained layer.

    Attributes:
        box: The detector as a black box, to be set before a frame; None where it cannot be one.
        windows: What the head's cells look at, once a frame has been watched.
    """

    def __init__(self, model: nn.Module, layer: LayerInfo) -> None:
        self.model, self.layer = model, layer
        self.module = model.get_submodule(layer.name)
        self.box: DetectorBlackBox | None = None
        self.windows: LayerWindows | None = None
        self._probe: ReachProbe | None = None
        self._open = True
        self._told: set[str] = set()
        if any(getattr(module, 'inverse', False) for module in model.modules()):
            self.give_up('a layer takes its voxels from another one')

    @property
    def ready(self) -> bool:
        """Whether frames have windows, for all that is known."""
        return self._open and self.windows is not None

    @contextmanager
    def recording(
        self, head: nn.Module, method: str, maps: Callable[..., Raw]
    ) -> Iterator[Recording | None]:
        """Takes notes of the host's own pass, if its frames can be explained with them.

        Args:
            head: As in ``Recording``, like the others.
            method: Likewise.
            maps: Likewise.
        """
        if not self.ready:  # Nobody knows yet, or each frame needs a graph of its own.
            yield None
        elif any(module.training for module in self.model.modules()):
            self._second_pass('a part of the model is in training mode')
            yield None
        else:
            notes = Recording(self.module, self.layer, head, method, maps, self._second_pass)
            with notes.watching():
                yield notes

    def _second_pass(self, reason: str) -> None:
        """Tells, once, why the host's own pass is not enough."""
        if reason not in self._told:
            _LOG.info('Layer %s: a second pass for a frame, since %s.', self.layer.name, reason)
        self._told.add(reason)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches a pass over a frame, if how far the head looks is not known yet."""
        if not self._open or self.box is None or self.windows is not None:
            yield
            return
        self._probe = probe = ReachProbe()
        with probe.watching(self.model):
            handle = self.module.register_forward_hook(lambda *_: probe.restart())
            try:
                yield
            finally:
                handle.remove()

    def begin(
        self,
        first: FirstPass | None,
        replay: Replays,
        box: DetectorBlackBox | None,
        raw: Callable[[], Raw],
    ) -> tuple[Leaf, dict[str, Tensor], Raw]:
        """Begins a frame's trace: from the notes of the host's pass, or by a second pass.

        Args:
            first: The frame in the host's own pass, if there are notes of it.
            replay: Runs the frame.
            box: The detector as a black box, None where it cannot be one.
            raw: Returns what the second pass left of the head's raw outputs, and forgets it.

        Returns:
            The leaf, each attribute's (K,) values, and the head's raw outputs.
        """
        self.box = box
        if first is not None and self.ready:
            return first.leaf, replay.seen(box.candidates_of(first.raw), first.leaf), first.raw
        with self.watching():
            leaf, attributes = replay.first()
        return leaf, attributes, raw()

    def give_up(self, reason: str) -> None:
        """From now on every detection has a pass of its own."""
        if self._open:
            _LOG.info(
                'Gradients at %s: a second pass over each frame, and one backward pass for each '
                'detection, since %s.',
                self.layer.name,
                reason,
            )
        self._open = False

    def source(
        self,
        leaf: Leaf,
        rows: Callable[[Tensor], Tensor],
        raw: Raw,
        replay: Replays,
        attributes: dict[str, Tensor],
        points: Tensor,
    ) -> WindowedGradients | None:
        """Returns the source of a frame's gradients, or None where windows do not serve.

        Args:
            leaf: The layer in the frame's pass.
            rows: Brings a gradient of the leaf's shape into rows.
            raw: The head's raw outputs in that pass, None if they are no maps.
            replay: What knows the detections' candidates and cells.
            attributes: The detections' (K,) attributes in that pass.
            points: (N, P) the frame's points.
        """
        if self.box is None:
            self.give_up('it is not one cell alone that decides what becomes a detection')
        if not self._open or len(replay.detections) == 0:
            return None
        if self.windows is None:
            self._learn(leaf, raw, replay.cells)
        if not self._open:
            return None
        windows = WindowPass(
            self.model,
            self.module,
            self.layer,
            self.box,
            self.windows,
            leaf,
            raw,
            replay,
            points,
        )
        return WindowedGradients(windows, attributes, rows, self.give_up)

    def _learn(self, leaf: Leaf, raw: Raw, cells: Tensor | None) -> None:
        found: LayerWindows | str = 'the layer or the head has no cells'
        if cells is not None and is_map(leaf.output):
            found = windows_of(self._probe, leaf, leaves(raw))
        self._probe = None
        if isinstance(found, str):
            self.give_up(found)
        elif found.part > _LARGEST_PART:
            self.give_up(f'a detection looks at {found.part:.0%} of the map')
        else:
            self.windows = found


@dataclass
class _Run:
    """A pass over a batch of windows, and the gradients that were asked for: a batch's, by name."""

    batch: Batch
    cut: Cut
    attributes: dict[str, Tensor]
    found: dict[tuple[tuple[str, ...], bool], Tensor | None] = field(default_factory=dict)


class WindowedGradients:
    """See ``core.gradients.GradientSource``; ``GradientWindows.source`` makes it."""

    def __init__(
        self,
        windows: WindowPass,
        attributes: dict[str, Tensor],
        rows: Callable[[Tensor], Tensor],
        give_up: Callable[[str], None],
    ) -> None:
        self.leaf, self.attributes = windows.layer.tensor, attributes
        self._pass, self._rows, self._give_up = windows, rows, give_up
        self._batches = list(self._planned())
        self._batch_of = {k: batch for batch in self._batches for k in batch.members}
        self.order = [k for batch in self._batches for k in batch.members]
        self._run: _Run | None = None
        self._failed = False
        self.passes = 0

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
            self.passes += 1
            run.found[key] = gradient_at(run.cut.leaf, run.attributes, slice(None), names, signed)
        found = run.found[key]
        return None if found is None else self._in_frame(run, run.batch.members.index(k), found)

    def _planned(self) -> Iterator[Batch]:
        """Groups the detections by the size of their windows, in batches of bounded size."""
        windows, groups = self._pass.windows, {}
        for k, (row, column) in enumerate(self._pass.cells.tolist()):
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
                yield Batch([k for k, _ in part], [spans for _, spans in part])

    def _attempt(self, batch: Batch) -> _Run | None:
        """Runs a batch of windows; whatever goes wrong, there is another way to the gradients."""
        try:
            self.passes += 1
            run = _Run(batch, *self._pass.run(batch))
        except Exception as error:  # A network may cut itself in ways that nobody thought of.
            self._give_up(f'it cannot be run on windows ({type(error).__name__}: {error})')
            self._failed = True
            return None
        worst = _deviation(run.attributes, self.attributes, batch.members)
        if not worst <= _TOLERANCE:
            self._give_up(
                f'windows give other values than the frame (by {worst:.1e} of 1 + |value|)'
            )
            self._failed = True
        return run

    def _in_frame(self, run: _Run, number: int, found: Tensor) -> Tensor:
        """Puts the gradient of one window where the window is; (M, C)."""
        if run.cut.places:
            gradient = found.new_zeros(self.leaf.shape)
            gradient[run.cut.places[number]] = found[
                run.cut.starts[number] : run.cut.starts[number + 1]
            ]
        else:
            gradient = found.new_zeros(self.leaf.shape)
            (y0, y1), (x0, x1) = run.batch.spans[number]
            gradient[0, :, y0:y1, x0:x1] = found[number]
        return self._rows(gradient)


@torch.no_grad()
def _deviation(
    windows: dict[str, Tensor], frame: dict[str, Tensor], members: Sequence[int]
) -> float:
    """Returns the largest |difference| / (1 + |value|) over the attributes; NaN if one is NaN."""
    pairs = [(windows[name], frame[name][list(members)]) for name in windows]
    return float(torch.stack([((a - b).abs() / (1 + b.abs())).amax() for a, b in pairs]).amax())
