"""Which of a frame's detections are explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .checks import require_names, require_number, require_whole, suggestion
from .errors import InputError, UnknownNameError
from .matching import Thresholds, match, overlap_function, resolve_thresholds
from .structures import Detections


@dataclass(frozen=True)
class Selection:
    """Chooses the detections to explain; the conditions are applied in the order listed.

    Attributes:
        classes: Names of the classes to keep, letter case ignored; None keeps all.
        score_thr: Detections with at least this score are kept.
        matched: None keeps all. 'tp' keeps those that match an annotated object, 'fp' those that
            match none (``explain3d.core.matching.match``). Thresholds in its place, as for
            ``iou_thr``, keep those that match with them.
        iou_thr: The thresholds for 'tp' and 'fp': a number, or one for each class by name; None
            for car and vehicle 0.7, pedestrian and cyclist 0.5.
        iou: The overlap by which ``matched`` compares, '3d' or 'bev'.
        top_n: At most so many are kept: those of the highest scores.
        seed: If given, the ``top_n`` are drawn at random, each detection alike, instead: a sample
            without a bias towards confident detections. The same seed draws the same.

    Raises:
        InputError: If a value is out of its range.
        UnknownNameError: If ``iou`` is unknown.
    """

    score_thr: float = 0.3
    top_n: int | None = None
    classes: Sequence[str] | None = None
    matched: str | Thresholds = None
    iou_thr: Thresholds = None
    iou: str = '3d'
    seed: int | None = None

    def __post_init__(self) -> None:
        require_number('score_thr', self.score_thr)
        require_whole('seed', self.seed, least=0, optional=True)
        require_whole('top_n', self.top_n, least=None, optional=True)
        if self.top_n is not None and self.top_n < 1:
            raise InputError(
                f'Expected top_n of at least 1, received {self.top_n}: leave it out to keep all.'
            )
        require_names('classes', self.classes, 'Car')
        if isinstance(self.matched, str) and self.matched not in ('tp', 'fp'):
            raise InputError(
                f"Expected matched to be None, 'tp', 'fp' or thresholds, received "
                f"{self.matched!r}: 'tp' keeps detections that match an annotated object."
            )
        if self.iou_thr is not None and self.matched not in ('tp', 'fp'):
            raise InputError(
                f"Expected matched='tp' or matched='fp' beside iou_thr, received "
                f'matched={self.matched!r}: set it, or leave iou_thr out.'
            )
        overlap_function(self.iou)
        resolve_thresholds([], self.iou_thr if isinstance(self.matched, str) else self.matched)

    def select(self, detections: Detections, ground_truth: Detections | None = None) -> Tensor:
        """Returns which detections to explain.

        Args:
            detections: K detections of a frame.
            ground_truth: The frame's annotated objects; needed for ``matched`` alone.

        Returns:
            (S,) int64 indices into ``detections``, by falling score; equal scores keep the order
            of the detections. On the device of the detections.

        Raises:
            UnknownNameError: If a class in ``classes`` is not one of the detector's.
            InputError: If ``matched`` is set and there is no ground truth.
        """
        order = torch.argsort(detections.scores, descending=True, stable=True)
        keep = (detections.scores >= self.score_thr) & self._of_classes(detections)
        kept = order[keep[order]]
        if self.matched is not None:
            kept = kept[self._matching(detections[kept], ground_truth)]
        if self.top_n is None or len(kept) <= self.top_n:
            return kept
        if self.seed is None:
            return kept[: self.top_n]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(len(kept), generator=generator)[: self.top_n].sort().values
        return kept[drawn.to(kept.device)]

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuses a selection that does not fit a detector's classes.

        Args:
            class_names: Names of all classes of the detector.

        Raises:
            UnknownNameError: If a class in ``classes`` is not one of them, or one that is selected
                has no threshold by which it would be matched.
        """
        known = [name.lower() for name in class_names]
        unknown = [name for name in self.classes or () if name.lower() not in known]
        if unknown:
            raise UnknownNameError(
                f'Unknown class {unknown}: the detector has {list(class_names)}; choose among '
                f'these.{suggestion(unknown[0], class_names)}'
            )
        if self.matched is not None:
            resolve_thresholds(class_names if self.classes is None else self.classes, self._limits)

    @property
    def _limits(self) -> Thresholds:
        """The thresholds of ``matched``."""
        return self.iou_thr if isinstance(self.matched, str) else self.matched

    def _of_classes(self, detections: Detections) -> Tensor:
        """(K,) bool: the detection is of one of ``classes``."""
        labels = detections.labels
        if self.classes is None:
            return torch.ones_like(labels, dtype=torch.bool)
        self.check_classes(detections.class_names)
        known = [name.lower() for name in detections.class_names]
        wanted = [known.index(name.lower()) for name in self.classes]
        return torch.isin(labels, torch.as_tensor(wanted, dtype=labels.dtype, device=labels.device))

    def _matching(self, detections: Detections, ground_truth: Detections | None) -> Tensor:
        """(K,) bool: the detection is a true or false positive as ``matched`` wants it."""
        if ground_truth is None:
            raise InputError(
                f'Expected ground truth, because the selection has matched={self.matched!r}, '
                f'received none: use a data set whose annotations are loaded, or matched=None.'
            )
        matches = match(detections, ground_truth, self._limits, self.iou)
        return matches.false_positives if self.matched == 'fp' else matches.true_positives


def with_thresholds(select: Mapping[str, Any], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a selection that tells true from false positives as the metrics do.

    Args:
        select: Arguments of ``Selection``; what it says of thresholds wins.
        protocol: Arguments of ``metrics.protocol.Protocol``.
    """
    if select.get('matched') not in ('tp', 'fp'):
        return dict(select)
    found = {key: protocol[key] for key in ('iou_thr', 'iou') if protocol.get(key) is not None}
    return {**found, **select}
