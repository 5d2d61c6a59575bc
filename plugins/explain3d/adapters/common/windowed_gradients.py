"""The gradients of many detections by few backward passes: each in its own window, stacked.

A detection of a one-stage head is decoded from one cell of the head's map, and that cell looks at
a window of the layer. The network above the layer runs once more, on a batch of such windows
instead of one frame; the sum of all detections' attributes then has, in window k, the gradient of
detection k alone. What is outside of the window has none. Where the network cannot be cut that way
(attention, norms over the frame, a second stage), or where a window does not give back the values
of the frame, each detection has a backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.gradients import gradient_at, gradients_at
from .layers_above import TOLERANCE, LayerAbove, Seen, deviation
from .window_pass import Batch, Cut, WindowPass

#: Windows of a batch together are at most as large as so many frames.
_BATCH = 1.0


@dataclass
class _Run:
    """A pass over a batch of windows.

    Attributes:
        batch: The windows.
        cut: Their features.
        attributes: The (n,) attributes of the batch's detections.
        seen: What the layers above gave.
        found: The gradients that were asked for, by name: at the cut, and at the layers above.
        fits: Of the layers above, by name and the layer's number: see ``LayerAbove.fits``.
    """

    batch: Batch
    cut: Cut
    attributes: dict[str, Tensor]
    seen: list[Seen | None] = field(default_factory=list)
    found: dict[tuple[tuple[str, ...], bool], list[Tensor | None]] = field(default_factory=dict)
    fits: dict[tuple[tuple[str, ...], bool, int], list[bool]] = field(default_factory=dict)

    def gradients(self, names: tuple[str, ...], signed: bool) -> list[Tensor | None]:
        """Makes a backward pass, unless these have been asked for."""
        if (names, signed) not in self.found:
            above = [seen.tensor for seen in self.seen if seen is not None]
            found = gradients_at(
                [self.cut.leaf, *above], self.attributes, slice(None), names, signed
            )
            rest = iter(found[1:])
            at_above = [None if seen is None else next(rest) for seen in self.seen]
            self.found[names, signed] = [found[0], *at_above]
        return self.found[names, signed]


class WindowedGradients:
    """See ``core.gradients.GradientSource``; ``GradientWindows.source`` makes it.

    Args:
        windows: Runs windows of the frame.
        attributes: The detections' (K,) attributes in the frame's pass.
        rows: Brings a gradient of the leaf's shape into rows.
        give_up: Called with the reason where windows do not serve.
    """

    def __init__(
        self,
        windows: WindowPass,
        attributes: dict[str, Tensor],
        rows: Callable[[Tensor], Tensor],
        give_up: Callable[[str], None],
    ) -> None:
        self.leaf, self.attributes = windows.layer.tensor, attributes
        self._pass, self.rows, self._give_up = windows, rows, give_up
        self._batches = list(self._planned())
        self._batch_of = {k: batch for batch in self._batches for k in batch.members}
        self.order = [k for batch in self._batches for k in batch.members]
        self._run: _Run | None = None
        self._above: list[LayerAbove] = []
        self._failed = False
        self.passes = 0

    def also_at(self, other: WindowedGradients) -> int:
        """Finds the gradients at another source's layer, too; returns its number here."""
        at, own = other._pass, self._pass.windows
        ratio = own.y.ratio / at.windows.y.ratio, own.x.ratio / at.windows.x.ratio
        self._above.append(LayerAbove(at.module, at.info, at.layer, ratio))
        return len(self._above) - 1

    def gradient(self, k: int, names: tuple[str, ...], signed: bool) -> Tensor | None:
        """Returns the (M, C) gradient of detection k, see ``GradientSource``."""
        run = self._running(k)
        if run is None:
            found = gradient_at(self.leaf, self.attributes, k, names, signed)
            return found if found is None else self.rows(found)
        found = self._gradients(run, names, signed)[0]
        return None if found is None else self._in_frame(run, run.batch.members.index(k), found)

    def gradient_above(
        self, number: int, k: int, names: tuple[str, ...], signed: bool
    ) -> Tensor | None:
        """Returns detection k's gradient at a layer above, of the shape of its features.

        None where windows of the explained layer do not give it.
        """
        run = self._running(k)
        if run is None or run.seen[number] is None:
            return None
        found = self._gradients(run, names, signed)[1 + number]
        if found is None:
            return None
        above, seen, spans = self._above[number], run.seen[number], run.batch.spans
        if (names, signed, number) not in run.fits:
            run.fits[names, signed, number] = above.fits(seen, spans, found)
        window = run.batch.members.index(k)
        if not run.fits[names, signed, number][window]:
            return None
        return above.in_frame(seen, spans, window, found)

    def _running(self, k: int) -> _Run | None:
        """Returns the pass over detection k's batch; None where windows do not serve."""
        if not self._failed and (self._run is None or self._run.batch is not self._batch_of[k]):
            self._run = None  # Its graph goes before the next one comes.
            self._run = self._attempt(self._batch_of[k])
        return None if self._failed else self._run

    def _gradients(self, run: _Run, names: tuple[str, ...], signed: bool) -> list[Tensor | None]:
        self.passes += (names, signed) not in run.found
        return run.gradients(names, signed)

    def _planned(self) -> Iterator[Batch]:
        """Groups the detections by the size of their windows, in batches of bounded size."""
        windows, groups = self._pass.windows, {}
        for k, (row, column) in enumerate(self._pass.places):
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
            run = _Run(batch, *self._pass.run(batch, self._above))
        except Exception as error:  # A network may cut itself in ways that nobody thought of.
            self._give_up(f'it cannot be run on windows ({type(error).__name__}: {error})')
            self._failed = True
            return None
        worst = _deviation(run.attributes, self.attributes, batch.members)
        if not worst <= TOLERANCE:
            self._give_up(
                f'windows give other values than the frame (by {worst:.1e} of 1 + |value|)'
            )
            self._failed = True
            return None
        run.seen = [layer.seen(batch.spans) for layer in self._above]
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
        return self.rows(gradient)


@torch.no_grad()
def _deviation(
    windows: dict[str, Tensor], frame: dict[str, Tensor], members: Sequence[int]
) -> float:
    """Returns the largest |difference| / (1 + |value|) over the attributes; NaN if one is NaN."""
    index = torch.tensor(members, device=next(iter(windows.values())).device)
    pairs = [(windows[name], frame[name][index]) for name in windows]
    return float(torch.stack([deviation(a, b).amax() for a, b in pairs]).amax())
