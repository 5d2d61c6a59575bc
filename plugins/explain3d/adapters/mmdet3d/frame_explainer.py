"""From one frame's predictions to its explanation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UnknownNameError
from ...core.selection import Selection
from ...core.structures import Detections, Explanation, Maps
from ...core.targets import TargetSpec, parse_targets
from ...methods import EXPLAINERS, Explainer
from .frames import check_points, detections_of, frame_id_of, ground_truth_of, one_frame
from .tracer import Tracer

_PACKAGES = ('explain3d', 'torch', 'numpy', 'mmdet3d', 'mmdet', 'mmcv', 'mmengine', 'spconv')


@dataclass(frozen=True)
class Frame:
    """One frame of a batch, copied before the host's own pass.

    Attributes:
        frame_id: Names it.
        inputs: The detector's inputs as a batch of one.
        source: Its point file, where known.
    """

    frame_id: str
    inputs: dict
    source: str | None = None

    def check(self) -> None:
        """Refuses points that cannot be explained, and on which the host may crash.

        Raises:
            InputError: If there are none, or some are not finite; the message names the frame.
        """
        check_points(self.inputs['points'][0], self.frame_id)


class FrameExplainer:
    """Explains the frames of one detector: selection, second pass, method.

    Args:
        model: The detector, without wrappers.
        explainer: An explainer, its registered name, or ``dict(type=name, **settings)``.
        targets: What of a detection to explain, see ``core.targets.parse_targets``.
        select: Arguments of ``core.selection.Selection``, or one.
        class_names: Names of the classes, default those of ``model.dataset_meta``.
        frame_id: Entry of the meta information that names a frame, default the point file's stem.

    Raises:
        UnknownNameError: If the method, a target, the layer or an argument of the selection is
            unknown.
        NotApplicableError: If the detector cannot be explained.
    """

    def __init__(
        self,
        model: nn.Module,
        explainer: str | dict | Explainer = 'FFAM',
        targets: TargetSpec | Sequence[TargetSpec] = 'all',
        select: Selection | Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        frame_id: str | None = None,
    ) -> None:
        self.model = model
        self.frame_id = frame_id
        self.explainer: Explainer = EXPLAINERS.build(explainer)
        self.targets = parse_targets(targets)
        self.selection = selection_of(select)
        self.class_names = tuple(class_names or _class_names(model))
        self.tracer = Tracer(model, self.explainer.layer)
        self.versions = package_versions()
        self._settings: dict[str, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides an explanation, as plain data; a digest stands for the model's weights."""
        if self._settings is None:
            self._settings = {
                'explainer': self.explainer.settings(),
                'layer': self.tracer.layer.name,
                'targets': [asdict(target) for target in self.targets],
                'select': asdict(self.selection),
                'model': weights_digest(self.model),
            }
        return self._settings

    def frames(self, inputs: dict, samples: Sequence[Any]) -> list[Frame]:
        """Takes a batch apart; to be called before the host's own pass, which may change it."""
        size = len(samples)
        return [
            Frame(
                frame_id_of(sample, i, self.frame_id),
                one_frame(inputs, i, size),
                sample.metainfo.get('lidar_path'),
            )
            for i, sample in enumerate(samples)
        ]

    def select(self, frame: Frame, sample: Any) -> Explanation:
        """Returns what is known of a frame without a second pass: an explanation without maps.

        Args:
            frame: The frame.
            sample: The data sample with the host's predictions.

        Raises:
            NotApplicableError: If the predictions are not 3D boxes in the LiDAR frame.
        """
        predictions = detections_of(
            sample, self.class_names, frame.frame_id, self.tracer.candidates.reports_logits
        )
        truth = ground_truth_of(sample, self.class_names, frame.frame_id)
        truth = truth if truth is None else truth.to(predictions.boxes.device)
        index = self.selection.select(predictions, truth)
        return self._without_maps(frame, predictions[index], truth, index)

    def explain(
        self, predict: Callable[[dict, list], Any], frame: Frame, sample: Any, plan: Explanation
    ) -> Explanation:
        """Fills in the maps of what ``select`` returned, by a second pass.

        Args:
            predict: The detector's own ``predict``.
            frame: The frame.
            sample: Its data sample.
            plan: From ``select``; returned as it is if it has no detections.

        Returns:
            The explanation, on the CPU.
        """
        if len(plan.detections):
            trace = self.tracer.trace(
                predict, frame.inputs, sample, plan.detections, frame.frame_id
            )
            with torch.enable_grad():
                plan.maps = self.explainer.explain(trace, self.targets)
        return on_cpu(plan)

    def nothing(self, frame: Frame) -> Explanation:
        """Returns an explanation without detections, for a frame that cannot be explained."""
        like = frame.inputs['points'][0]
        none = Detections(
            like.new_zeros(0, 7), like.new_zeros(0), like.new_zeros(0).long(), self.class_names
        )
        return self._without_maps(frame, none, None, None)

    def _without_maps(
        self,
        frame: Frame,
        detections: Detections,
        truth: Detections | None,
        index: Tensor | None,
    ) -> Explanation:
        points = frame.inputs['points'][0]
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
    return replace(
        explanation,
        points=_cpu(explanation.points),
        detections=_cpu(explanation.detections),
        ground_truth=_cpu(explanation.ground_truth),
        detection_indices=_cpu(explanation.detection_indices),
        maps=replace(
            maps,
            saliency={name: _cpu(value) for name, value in maps.saliency.items()},
            global_map=_cpu(maps.global_map),
            concepts=_cpu(maps.concepts),
        ),
    )


def _cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    return value.to('cpu') if isinstance(value, Detections) else value


def selection_of(select: Selection | Mapping[str, Any] | None) -> Selection:
    """Returns a selection from its arguments; an unknown one is refused with a list of all."""
    if isinstance(select, Selection):
        return select
    known = [f.name for f in fields(Selection)]
    for key in select or {}:
        if key not in known:
            raise UnknownNameError(
                f'Unknown argument {key!r} of the selection: expected some of {known}.'
            )
    return Selection(**(select or {}))


def _class_names(model: nn.Module) -> Sequence[str]:
    return (getattr(model, 'dataset_meta', None) or {}).get('classes') or ()


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def weights_digest(model: nn.Module) -> str:
    """Returns a digest of the weights, to tell results of different checkpoints apart."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
