"""From one frame's predictions to its explanation, in OpenPCDet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...core.selection import Selection
from ...core.structures import Detections, Explanation, Trace
from ...core.targets import TargetSpec
from ...methods import Explainer
from ..common import frame_explainer as common
from ..common.class_names import check_class_order
from ..common.data_facts import UNKNOWN, DataFacts
from ..common.frames import Frame
from .detector import head_classes
from .frames import detections_of, frames_of, ground_truth_of
from .raw_scores import reports_logits
from .tracer import Tracer


class FrameExplainer(common.FrameExplainer):
    """Explains the frames of one detector: selection, trace, method.

    Args:
        model: As in ``adapters.common.frame_explainer.FrameExplainer``, like those that follow.
        explainer: Likewise.
        targets: Likewise.
        select: Likewise.
        class_names: Names of the classes, default those of the model.
        head: As in ``Tracer``.
        through_proposals: As in ``Tracer``.
        facts: What the data set says of its frames.

    Raises:
        InputError: If the head calls its classes otherwise than the data set.
    """

    packages = ('pcdet',)
    tracer: Tracer

    def __init__(
        self,
        model: nn.Module,
        explainer: str | dict | Explainer = 'FFAM',
        targets: TargetSpec | Sequence[TargetSpec] = 'all',
        select: Selection | Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        head: str | None = None,
        through_proposals: bool = False,
        facts: DataFacts = UNKNOWN,
    ) -> None:
        self._trace_options = {'head': head, 'through_proposals': through_proposals}
        names = class_names or getattr(model, 'class_names', ())
        super().__init__(model, explainer, targets, select, names, facts)
        self.names = facts.frame_names()
        check_class_order(facts.classes, self.class_names, 'the detector (CLASS_NAMES)')
        check_class_order(sorted(self.class_names), head_classes(model), 'CLASS_NAMES_EACH_HEAD')

    def _make_tracer(self, layer: str) -> Tracer:
        return Tracer(self.model, layer, **self._trace_options)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides an explanation, as plain data; a digest stands for the model's weights."""
        return {**super().settings, **self._trace_options}

    @property
    def point_range(self) -> tuple[float, ...]:
        """As in ``adapters.common.frame_explainer.FrameExplainer``."""
        return tuple(float(v) for v in self.model.dataset.point_cloud_range)

    def frames(self, batch: Mapping[str, Any]) -> list[Frame]:
        """Takes a batch apart; to be called before the host's own pass, which changes it."""
        return frames_of(batch, self.names)

    def select(self, frame: Frame, output: Mapping[str, Tensor]) -> Explanation:
        """Returns what the predictions tell of a frame: an explanation without maps.

        Args:
            frame: The frame.
            output: What the detector returned for it.
        """
        raw = reports_logits(self.model, output)
        predictions = detections_of(output, self.class_names, frame.frame_id, raw)
        return self._selected(frame, predictions, ground_truth_of(frame.inputs, self.class_names))

    def explain(
        self, predict: Callable[[dict], Any], frame: Frame, plan: Explanation
    ) -> Explanation:
        """Fills in the maps of what ``select`` returned; on the CPU.

        Args:
            predict: The detector's own ``forward``.
            frame: The frame.
            plan: From ``select``; returned as it is if it has no detections.
        """
        return self._filled(plan, lambda: self.trace(predict, frame, plan.detections))

    def trace(self, predict: Callable[[dict], Any], frame: Frame, detections: Detections) -> Trace:
        """Traces a frame at the explainer's layers; arguments as in ``Tracer.trace``."""
        return self._traced(
            frame, lambda tracer, first: tracer.trace(predict, frame, detections, first)
        )
