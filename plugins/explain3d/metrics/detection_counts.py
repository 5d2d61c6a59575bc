"""How many objects a detector finds at one score threshold: hits, misses, false alarms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.matching import Thresholds, match
from ..core.structures import Detections


@dataclass(frozen=True)
class DetectionCounts:
    """Counts of one class; counts of several frames add up.

    Attributes:
        tp: Detections that found an object.
        fp: Detections that found none.
        fn: Objects that no detection found.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def recall(self) -> float:
        """Share of the objects that were found, in [0, 1]; NaN without objects."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float('nan')

    @property
    def precision(self) -> float:
        """Share of the detections that found an object, in [0, 1]; NaN without detections."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float('nan')

    def __add__(self, other: DetectionCounts) -> DetectionCounts:
        return DetectionCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)


def count_detections(
    detections: Detections,
    ground_truth: Detections,
    score_thr: float = 0.3,
    thresholds: Thresholds = None,
    iou: str = '3d',
    ignored: Tensor | None = None,
) -> dict[str, DetectionCounts]:
    """Counts the hits, misses and false alarms of one frame, class by class.

    Detections of at least ``score_thr`` are matched greedily with the objects of their class
    (``explain3d.core.matching.match``). Those left over that match an ignored object count as
    neither hit nor false alarm, and an ignored object is never a miss.

    Args:
        detections: K detections.
        ground_truth: G annotated objects; classes are compared by name, letter case ignored.
        score_thr: Lowest score of a detection that counts.
        thresholds: IoU that must be exceeded: one number, or one for each class. Default: car
            0.7, pedestrian 0.5, cyclist 0.5.
        iou: '3d' or 'bev'.
        ignored: (G,) bool, objects that need not be found. Default: none.

    Returns:
        The counts of each of the detector's classes, in their order.

    Raises:
        UnknownNameError: If ``iou`` is unknown, or a detection's class has no threshold.
        InputError: If a threshold is not in [0, 1), or boxes are malformed.
    """
    detections = detections[detections.scores >= score_thr]
    if ignored is None:
        ignored = torch.zeros(len(ground_truth), dtype=torch.bool, device=detections.boxes.device)
    objects = ground_truth[~ignored]
    matches = match(detections, objects, thresholds, iou)
    rest = detections[matches.false_positives]
    alarms = rest[match(rest, ground_truth[ignored], thresholds, iou).false_positives]

    hits = _by_class(detections[matches.true_positives])
    false_alarms, misses = _by_class(alarms), _by_class(objects[~matches.found])
    return {
        name: DetectionCounts(
            hits.count(name.lower()), false_alarms.count(name.lower()), misses.count(name.lower())
        )
        for name in detections.class_names
    }


def add_counts(frames: Iterable[dict[str, DetectionCounts]]) -> dict[str, DetectionCounts]:
    """Adds up the counts of several frames, class by class."""
    total: dict[str, DetectionCounts] = {}
    for frame in frames:
        for name, counts in frame.items():
            total[name] = total.get(name, DetectionCounts()) + counts
    return total


def _by_class(detections: Detections) -> list[str]:
    return [name.lower() for name in detections.names()]
