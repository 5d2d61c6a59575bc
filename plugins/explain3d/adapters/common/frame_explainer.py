"""From one frame's predictions to its explanation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields, replace
from importlib import metadata
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.checks import require_dict, suggestion
from ...core.errors import UnknownNameError
from ...core.precision import full_precision_kernels, kernel_settings
from ...core.selection import Selection
from ...core.structures import Detections, Explanation, Maps, Trace
from ...core.targets import Target, TargetSpec, parse_targets
from ...core.transfer import to_cpu
from ...methods import EXPLAINERS, Explainer
from .data_facts import UNKNOWN, DataFacts
from .first_pass import FirstPass, Recordings, recordings
from .frames import Frame
from .shared_gradients import sharing
from .weights import weights_digest


class FrameExplainer(ABC):
    """Explains the frames of one detector: selection, trace, method.

    A subclass knows the host: how a frame's predictions are read, and how it is traced.

    Args:
        model: The detector, without wrappers.
        explainer: An explainer, its registered name, or ``dict(type=name, **settings)``.
        targets: What of a detection to explain, see ``core.targets.parse_targets``.
        select: Arguments of ``core.selection.Selection``, or one.
        class_names: Names of the classes.
        facts: What the data set says of its frames. Without one annotated object in it, the
            annotation of its frames is not known, rather than empty.

    Attributes:
        tracers: Made by the subclass, one for each of the explainer's layers.
        tracer: The first of them; its ``layer`` is a ``LayerInfo``.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If the method, a target, the layer, an argument of the selection or a
            class in it is unknown.
        NotApplicableError: If the detector cannot be explained.
        InputError: If the selection needs annotations, and the data set has none.
    """

    #: Packages whose versions a result names, beside those that every result depends on.
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: nn.Module,
        explainer: str | dict | Explainer = 'FFAM',
        targets: TargetSpec | Sequence[TargetSpec] = 'all',
        select: Selection | Mapping[str, Any] | None = None,
        class_names: Sequence[str] = (),
        facts: DataFacts = UNKNOWN,
    ) -> None:
        self.model, self.facts = model, facts
        self.explainer, self.targets, self.selection = checked_explaining(
            explainer, targets, select
        )
        if self.selection.matched is not None:
            facts.require_annotation(f'select with matched={self.selection.matched!r}')
        self.class_names = tuple(class_names)
        if self.class_names:
            self.selection.check_classes(self.class_names)
        self.tracers = [self._make_tracer(layer) for layer in self.explainer.layers]
        self.tracer = self.tracers[0]
        self.versions = package_versions(self.packages)
        self._settings: dict[str, Any] | None = None

    @abstractmethod
    def _make_tracer(self, layer: str) -> Any:
        """Returns what traces frames at that layer."""

    @property
    @abstractmethod
    def point_range(self) -> tuple[float, ...]:
        """Where the detector looks: lower x, y, z and upper x, y, z, metres."""

    def recording(self) -> AbstractContextManager[Recordings | None]:
        """Around the host's own pass: takes notes of it, if they spare its frames a second one."""
        return recordings(tracer.recording() for tracer in self.tracers)

    def _traced(self, frame: Frame, at: Callable[[Any, FirstPass | None], Trace]) -> Trace:
        """Traces a frame at each of the explainer's layers.

        Args:
            frame: The frame, maybe with notes of the host's own pass.
            at: Makes the trace of a tracer, given what there is of the frame for it.
        """
        notes = frame.first or [None] * len(self.tracers)
        with full_precision_kernels():
            first, *further = (at(t, note) for t, note in zip(self.tracers, notes, strict=True))
        return replace(first, further=tuple(sharing(first, further)))

    @abstractmethod
    def select(self, frame: Frame, output: Any) -> Explanation:
        """Returns what the predictions tell of a frame: an explanation without maps.

        Args:
            frame: The frame.
            output: What the host's own pass gave for it.
        """

    @property
    def settings(self) -> dict[str, Any]:
        """What decides an explanation, as plain data; a digest stands for the model's weights."""
        if self._settings is None:
            with full_precision_kernels():
                kernels = kernel_settings()
            self._settings = {
                'explainer': self.explainer.settings(),
                'layer': ', '.join(tracer.layer.name for tracer in self.tracers),
                'targets': [asdict(target) for target in self.targets],
                'select': asdict(self.selection),
                'model': weights_digest(self.model),
                'kernels': kernels,
            }
        return self._settings

    def nothing(self, frame: Frame) -> Explanation:
        """Returns an explanation without detections, for a frame that cannot be explained."""
        like = frame.points
        none = Detections(
            like.new_zeros(0, 7), like.new_zeros(0), like.new_zeros(0).long(), self.class_names
        )
        return self._without_maps(frame, none, None, None)

    def _selected(
        self, frame: Frame, predictions: Detections, truth: Detections | None
    ) -> Explanation:
        """Returns an explanation without maps of the predictions that are to be explained."""
        if self.facts.annotated is False:
            truth = None
        truth = truth if truth is None else truth.to(predictions.boxes.device)
        index = self.selection.select(predictions, truth)
        return self._without_maps(frame, predictions[index], truth, index)

    def _filled(self, plan: Explanation, trace: Callable[[], Trace]) -> Explanation:
        """Fills in the maps of what ``select`` returned; on the CPU.

        Args:
            plan: From ``select``; without detections nothing is traced.
            trace: Makes the trace.
        """
        if len(plan.detections):
            found = trace()
            if found.black_box is not None:
                found.black_box.name = self.settings['model']
            with torch.enable_grad():
                plan.maps = self.explainer.explain(found, self.targets)
        return on_cpu(plan)

    def _without_maps(
        self,
        frame: Frame,
        detections: Detections,
        truth: Detections | None,
        index: Tensor | None,
    ) -> Explanation:
        points = frame.points
        return Explanation(
            frame_id=frame.frame_id,
            points=points,
            detections=detections,
            maps=Maps({t.name: points.new_zeros(0, len(points)) for t in self.targets}),
            method=type(self.explainer).__name__,
            ground_truth=truth,
            detection_indices=index,
            settings=self.settings,
            versions=self.versions,
        )


def on_cpu(explanation: Explanation) -> Explanation:
    """Returns an explanation whose tensors are on the CPU and have no graph."""
    maps = explanation.maps
    with to_cpu() as cpu:

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else cpu(value)

        def boxes(value: Detections | None) -> Detections | None:
            if value is None:
                return None
            parts = {name: cpu(getattr(value, name)) for name in ('boxes', 'scores', 'labels')}
            return replace(value, **parts)

        return replace(
            explanation,
            points=cpu(explanation.points),
            detections=boxes(explanation.detections),
            ground_truth=boxes(explanation.ground_truth),
            detection_indices=moved(explanation.detection_indices),
            maps=replace(
                maps,
                saliency={name: cpu(value) for name, value in maps.saliency.items()},
                global_map=moved(maps.global_map),
                concepts=moved(maps.concepts),
            ),
        )


def checked_explaining(
    explainer: str | dict | Explainer,
    targets: TargetSpec | Sequence[TargetSpec],
    select: Selection | Mapping[str, Any] | None,
) -> tuple[Explainer, tuple[Target, ...], Selection]:
    """Returns method, targets and selection; what can be wrong without a model is found.

    Args:
        explainer: As in ``FrameExplainer``.
        targets: As in ``FrameExplainer``.
        select: As in ``FrameExplainer``.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If the method, a target or an argument of the selection is unknown.
    """
    return EXPLAINERS.build(explainer), parse_targets(targets), selection_of(select)


def selection_of(select: Selection | Mapping[str, Any] | None) -> Selection:
    """Returns a selection from its arguments; an unknown one is refused with a list of all."""
    if isinstance(select, Selection):
        return select
    select = require_dict('select', select, 'dict(score_thr=0.3, top_n=20)')
    known = [f.name for f in fields(Selection)]
    for key in select:
        if key not in known:
            raise UnknownNameError(
                f'Unknown argument {key!r} of the selection: expected some of {known}.'
                f'{suggestion(key, known)}'
            )
    return Selection(**select)


def package_versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Returns the versions of the packages that a result depends on, if they are installed.

    Args:
        more: Names of packages beside explain3d, torch, numpy and spconv.
    """
    found = {}
    for name in ('explain3d', 'torch', 'numpy', *more, 'spconv'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
