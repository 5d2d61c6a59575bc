"""Whether and how a layer's gradients come from windows, as it shows frame after frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ...core.capture import Leaf
from ...core.reach import ReachProbe
from .black_box import DetectorBlackBox
from .first_pass import FirstPass, Raw, Recording
from .layer_windows import LayerWindows, is_map, windows_of
from .layers import LayerInfo
from .nested import leaves
from .replay import Replays
from .window_pass import WindowPass
from .windowed_gradients import WindowedGradients

_LOG = logging.getLogger('explain3d')
#: A window that is a larger part of the map saves nothing.
_LARGEST_PART = 0.5


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
