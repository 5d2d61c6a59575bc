"""From one frame's predictions to its explanation, in MMDetection3D."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ...core.selection import Selection
from ...core.structures import Detections, Explanation, Trace
from ...core.targets import TargetSpec
from ...methods import Explainer
from ..common import frame_explainer as common
from ..common.class_names import check_class_order
from ..common.data_facts import UNKNOWN, DataFacts
from ..common.frames import Frame
from .detector import head_classes, voxel_layer
from .frames import detections_of, frame_id_of, ground_truth_of, one_frame
from .tracer import Tracer

#: Packages of the host whose versions a result names.
PACKAGES = ('mmdet3d', 'mmdet', 'mmcv', 'mmengine')


class FrameExplainer(common.FrameExplainer):
    """Explains the frames of one detector: selection, trace, method.

    Args:
        model: As in ``adapters.common.frame_explainer.FrameExplainer``, like all others.
        explainer: Likewise.
        targets: Likewise.
        select: Likewise.
        class_names: Names of the classes, default those of ``model.dataset_meta``.
        frame_id: Entry of the meta information that names a frame, default the point file's stem.
        facts: What the data set says of its frames.

    Raises:
        InputError: If the head calls its classes otherwise than ``class_names``, or detections
            are to be selected by annotations that the data set has not.
    """

    packages = PACKAGES
    tracer: Tracer

    def __init__(
        self,
        model: nn.Module,
        explainer: str | dict | Explainer = 'FFAM',
        targets: TargetSpec | Sequence[TargetSpec] = 'all',
        select: Selection | Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        frame_id: str | None = None,
        facts: DataFacts = UNKNOWN,
    ) -> None:
        names = class_names or _class_names(model)
        super().__init__(model, explainer, targets, select, names, facts)
        self.frame_id = frame_id
        self.names = facts.frame_names()
        check_class_order(facts.classes, self.class_names, 'the checkpoint')
        check_class_order(self.class_names, head_classes(model), 'its head')

    def _make_tracer(self, layer: str) -> Tracer:
        return Tracer(self.model, layer)

    @property
    def point_range(self) -> tuple[float, ...]:
        """As in ``adapters.common.frame_explainer.FrameExplainer``."""
        return tuple(float(v) for v in voxel_layer(self.model).point_cloud_range)

    def frames(self, inputs: dict, samples: Sequence[Any]) -> list[Frame]:
        """Takes a batch apart; to be called before the host's own pass, which may change it."""
        numbers = self.names.numbers(len(samples))
        return [
            self._frame(inputs, sample, i, number, len(samples))
            for i, (sample, number) in enumerate(zip(samples, numbers, strict=True))
        ]

    def _frame(self, inputs: dict, sample: Any, index: int, number: int, size: int) -> Frame:
        name = frame_id_of(sample, number, self.frame_id, self.names)
        one = one_frame(inputs, index, size)
        source, repeat = sample.metainfo.get('lidar_path'), self.names.is_repeat(number)
        return Frame(name, one['points'][0], one, source, repeat=repeat)

    def select(self, frame: Frame, output: Any) -> Explanation:
        """Returns what the predictions tell of a frame: an explanation without maps.

        Args:
            frame: The frame.
            output: The data sample with the host's predictions.

        Raises:
            NotApplicableError: If the predictions are not 3D boxes in the LiDAR frame.
        """
        logits = self.tracer.candidates.reports_logits
        predictions = detections_of(output, self.class_names, frame.frame_id, logits)
        truth = ground_truth_of(output, self.class_names, frame.frame_id)
        return self._selected(frame, predictions, truth)

    def explain(
        self, predict: Callable[[dict, list], Any], frame: Frame, sample: Any, plan: Explanation
    ) -> Explanation:
        """Fills in the maps of what ``select`` returned.

        Args:
            predict: The detector's own ``predict``.
            frame: The frame.
            sample: Its data sample.
            plan: From ``select``; returned as it is if it has no detections.

        Returns:
            The explanation, on the CPU.
        """
        return self._filled(plan, lambda: self.trace(predict, frame, sample, plan.detections))

    def trace(
        self,
        predict: Callable[[dict, list], Any],
        frame: Frame,
        sample: Any,
        detections: Detections,
    ) -> Trace:
        """Traces a frame at the explainer's layers; arguments as in ``Tracer.trace``."""
        return self._traced(
            frame,
            lambda tracer, first: tracer.trace(
                predict, frame.inputs, sample, detections, frame.frame_id, first
            ),
        )


def _class_names(model: nn.Module) -> Sequence[str]:
    return (getattr(model, 'dataset_meta', None) or {}).get('classes') or ()
