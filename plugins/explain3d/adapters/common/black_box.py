"""A one-stage detector as a black box, which computes no more of a frame than it has to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.black_box import BlackBox, Region
from ...core.reach import ReachProbe, grid_of
from ...core.session import frozen_evaluation
from ...core.structures import Detections
from .candidate_places import CandidateIndex, CandidatePlaces
from .candidates import Candidates
from .nested import frame_of, leaves, mapped
from .transposed import spread_transposed
from .unchanged import Unchanged, weights_of
from .window_passes import WindowPasses
from .windows import View, Window

#: What a pass costs beside what grows with its area, as a part of a whole pass.
_OVERHEAD = 0.02
#: Clouds that go through an encoder that remembers the frame, for each one of ``batch_size``: what
#: such a cloud takes is a small part of what a whole one takes, and they share rows.
_VERSIONS = 8


class DetectorBlackBox(BlackBox):
    """Runs a detector up to its head's raw outputs, and decodes what is asked for.

    Args:
        model: The detector, without wrappers; left as found.
        encoder: The module of it that gives the bird's-eye-view map.
        range_min: Lower corner of the voxel grid, x and y in metres.
        voxel_size: x and y in metres.
        class_names: Names of the classes.
        batch_size: As in ``BlackBox``.
        windows: Whether to compute the changed part of a frame alone where that is exact.
    """

    def __init__(
        self,
        model: nn.Module,
        encoder: nn.Module,
        range_min: tuple[float, float],
        voxel_size: tuple[float, float],
        class_names: Sequence[str],
        batch_size: int = 4,
        windows: bool = True,
    ) -> None:
        super().__init__(batch_size)
        self.model, self.encoder, self.windows = model, encoder, windows
        self.range_min, self.voxel_size = range_min, voxel_size
        self.class_names = tuple(class_names)
        self._passes = WindowPasses(model, encoder)
        self._probed = False
        self._base_answer: Candidates | None = None
        #: The frame and the weights that the answer, the memory and the map are of.
        self._seen = Unchanged(())
        self._index = CandidateIndex()
        self._canvases: list[Tensor] = []

    @abstractmethod
    def raw(self, clouds: Sequence[Tensor]) -> Any:
        """Returns the head's raw outputs for a batch of clouds, none of them empty."""

    @abstractmethod
    def candidates_of(self, raw: Any) -> Candidates:
        """Returns the candidates of the raw outputs of one frame."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """How many classes the head knows."""

    def candidates(self, clouds: Sequence[Tensor], score_thr: float) -> list[Detections]:
        """As in ``BlackBox``."""
        found = []
        with self._evaluating():
            for answer in self._answers(clouds):
                parts = [
                    self._found(answer, answer.above(label, score_thr), label)
                    for label in range(self.num_classes if answer is not None else 0)
                ]
                found.append(_joined(parts) if parts else self._nothing())
        return found

    def candidates_in(
        self,
        clouds: Sequence[Tensor],
        regions: Sequence[Region],
        score_thr: float,
        base: Tensor | None = None,
        anywhere: bool = False,
    ) -> list[list[Detections]]:
        """As in ``BlackBox``."""
        with self._evaluating():
            window = None
            if base is not None and len(base):
                self._remember(base)
                window = self._window(regions, anywhere)
            return [
                self._in_regions(answer, regions, score_thr)
                for answer in self._answers(clouds, window)
            ]

    def reach(self) -> tuple[float, float] | None:
        """As in ``BlackBox``; known once ``candidates_in`` has seen a base."""
        return None if self._passes.view is None else self._passes.view.metres()

    def cost(self, regions: Sequence[Region], base: Tensor, anywhere: bool = False) -> float:
        """As in ``BlackBox``."""
        window = self._window(regions, anywhere) if self._remembers(base) else None
        return 1.0 if window is None else self._cost(window)

    def _cost(self, window: Window) -> float:
        return min(1.0, _OVERHEAD + self._passes.cost(window))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with frozen_evaluation(self.model), spread_transposed(self.model), torch.no_grad():
            yield

    def _answers(
        self, clouds: Sequence[Tensor], window: Window | None = None
    ) -> Iterator[Candidates | None]:
        """Yields the candidates of each cloud; None for an empty one."""
        versions = window is not None and self._passes.has_versions(window)
        size = self.batch_size * (_VERSIONS if versions else 1)
        for start in range(0, len(clouds), size):
            part = clouds[start : start + size]
            if len(part) == 1 and self._remembers(part[0]):
                yield self._base_answer
            elif window is None or (window.changed is None and not all(map(len, part))):
                yield from self._whole(part)  # In which an empty cloud has no candidates.
            else:
                yield from self._windowed(part, window)

    def _whole(self, clouds: Sequence[Tensor]) -> Iterator[Candidates | None]:
        full = [cloud for cloud in clouds if len(cloud)]
        raw = self.raw(full) if full else None
        self.passes += len(full)
        self.work += len(full)
        place = 0
        for cloud in clouds:
            if len(cloud) == 0:
                yield None
                continue
            yield self.candidates_of(frame_of(raw, place))
            place += 1

    def _windowed(self, clouds: Sequence[Tensor], window: Window) -> Iterator[Candidates | None]:
        if self._passes.has_versions(window):
            raw = self._passes.of_versions(self.raw, clouds, window)
            if raw is not None:
                yield from self._decoded(raw, len(clouds), window)
                return
        for start in range(0, len(clouds), self.batch_size):
            part = clouds[start : start + self.batch_size]
            raw = self._passes.of_crops(self.raw, part, window)
            if raw is None:
                yield from self._whole(part)
            else:
                yield from self._decoded(raw, len(part), window)

    def _decoded(self, raw: Any, count: int, window: Window) -> Iterator[Candidates]:
        self.passes += count
        self.work += count * self._cost(window)
        for place in range(count):
            yield self.candidates_of(self._on_canvas(frame_of(raw, place), window))

    def _on_canvas(self, raw: Any, window: Window) -> Any:
        """Puts outputs of a window where they belong; all around are those of an earlier one."""
        (y0, y1), (x0, x1) = window.out
        canvases = iter(self._canvases)

        def put(value: Tensor) -> Tensor:
            canvas = next(canvases)
            canvas[:, :, y0:y1, x0:x1] = value
            return canvas

        return mapped(raw, put)

    def _remembers(self, base: Tensor) -> bool:
        """Whether what is known is of this frame, and of the weights that the model has now."""
        return self._passes.base is base and self._seen.holds_for(self._sources(base))

    def _sources(self, base: Tensor) -> list[Tensor]:
        return [base, *weights_of(self.model)]

    def _remember(self, base: Tensor) -> None:
        """Runs the unperturbed frame, unless it is known."""
        if self._remembers(base):
            return
        self._passes.base = None  # Until the pass has come to its end.
        self._index.forget_regions()
        caught: list[Any] = []
        handle = self.encoder.register_forward_hook(lambda _m, _i, output: caught.append(output))
        probe = ReachProbe()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._passes.memory.remembering())
                if not self._probed:
                    stack.enter_context(probe.watching(self.model))
                    stack.enter_context(self._passes.tail.watching(self.model, probe))
                raw = self.raw([base])
        finally:
            handle.remove()
        self.passes += 1
        self.work += 1
        self._base_answer = self.candidates_of(frame_of(raw, 0))
        if not self._probed:
            self._passes.view = self._view_of(probe, caught[0], raw)
            self._canvases = [torch.zeros_like(t) for t in leaves(raw)] if self._passes.view else []
            self._probed = True
        self._passes.base, self._seen = base, Unchanged(self._sources(base))
        self._passes.base_map = caught[0] if self._passes.view is not None else None

    def _view_of(self, probe: ReachProbe, bev: Any, raw: Any) -> View | None:
        """Returns what the probe has seen, or None where windows cannot be exact."""
        outputs = leaves(raw)
        shapes = {tuple(t.shape[2:]) for t in outputs}
        if not (isinstance(bev, Tensor) and bev.dim() == 4 and len(shapes) == 1):
            return None
        grids = grid_of(probe, bev), grid_of(probe, outputs[0])
        if not probe.bounded or None in grids or any(t.dim() != 4 for t in outputs):
            return None
        try:
            self._base_answer.cells(self._base_answer.of_label(0)[:1])
        except TypeError:
            return None
        bev_grid, out = grids
        encoder, total = probe.of(bev), probe.of(outputs)
        probe.forget()
        dense = (total[0] - encoder[0], total[1] - encoder[1])
        alignment = max(1, round(probe.coarsest / min(bev_grid.stride[-2:])))
        return View(
            self.range_min, self.voxel_size, encoder, dense, bev_grid.last(2), out.last(2),
            alignment, self._passes.tail.reach(outputs) or dense,
        )  # fmt: skip

    def _window(self, regions: Sequence[Region], anywhere: bool) -> Window | None:
        if not self.windows or self._passes.view is None:
            return None
        places = self._index.of(self._base_answer)
        index = [places.index(self._base_answer, region) for region in regions]
        cells = self._base_answer.cells(torch.cat(index))
        if len(cells) == 0:
            return None
        low, high = cells.amin(0).tolist(), (cells.amax(0) + 1).tolist()
        view, spans = self._passes.view, ((low[0], high[0]), (low[1], high[1]))
        if not anywhere:
            return view.window_of(regions, *spans)
        window = view.window_around(regions, *spans)
        return window if self._cost(window) < 1 else None

    def _in_regions(
        self, answer: Candidates | None, regions: Sequence[Region], score_thr: float
    ) -> list[Detections]:
        if answer is None:
            return [self._nothing() for _ in regions]
        places = self._index.of(answer)
        return [self._in_region(answer, places, region, score_thr) for region in regions]

    def _in_region(
        self, answer: Candidates, places: CandidatePlaces, region: Region, score_thr: float
    ) -> Detections:
        index = places.index(answer, region)
        scores = answer.scores(index, torch.full_like(index, region.label))
        return self._found(answer, index[scores > score_thr], region.label)

    def _found(self, answer: Candidates, index: Tensor, label: int) -> Detections:
        labels = torch.full_like(index, label)
        boxes, scores = answer.boxes(index).float(), answer.scores(index, labels).float()
        return Detections(boxes, scores, labels, self.class_names)

    def _nothing(self) -> Detections:
        like = next(self.model.parameters())
        none = torch.zeros(0, 7, device=like.device)
        return Detections(none, none[:, 0], none[:, 0].long(), self.class_names)


def _joined(parts: Sequence[Detections]) -> Detections:
    return Detections(
        torch.cat([p.boxes for p in parts]),
        torch.cat([p.scores for p in parts]),
        torch.cat([p.labels for p in parts]),
        parts[0].class_names,
    )
