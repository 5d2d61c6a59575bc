"""Recall and precision of KITTI results at one score threshold, from the evaluation's own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from explain3d.core.checks import require_number
from explain3d.core.matching import Thresholds, overlap_function, resolve_thresholds
from explain3d.core.structures import Detections
from explain3d.metrics.detection_counts import DetectionCounts, add_counts, count_detections

# Objects so much alike that finding one of them is not held against a detector, as in KITTI.
_NEIGHBOURS = {'van': 'car', 'person_sitting': 'pedestrian'}


@dataclass(frozen=True)
class CountProtocol:
    """When a detection counts and when it is a hit.

    Attributes:
        score_thr: Lowest score of a detection that counts.
        iou: '3d' or 'bev'.
        thr: IoU that must be exceeded: one number, or one for each class; None for car 0.7,
            pedestrian and cyclist 0.5.

    Raises:
        UnknownNameError: If ``iou`` is unknown.
        InputError: If a threshold is not in [0, 1).
    """

    score_thr: float = 0.3
    iou: str = 'bev'
    thr: Thresholds = None

    def __post_init__(self) -> None:
        # Now, not at the end of a long test run.
        require_number('score_thr', self.score_thr)
        overlap_function(self.iou)
        resolve_thresholds([], self.thr)

    def label(self, name: str) -> str:
        """Returns the protocol for the class ``name`` in a word, as 'BEV@0.70_score0.30'."""
        (threshold,) = resolve_thresholds([name], self.thr)
        return f'{self.iou.upper()}@{threshold:.2f}_score{self.score_thr:.2f}'


def count_kitti(
    gt_annos: Sequence[dict],
    dt_annos: Sequence[dict],
    classes: Sequence[str],
    protocol: CountProtocol,
) -> dict[str, DetectionCounts]:
    """Counts hits, misses and false alarms over annotated frames.

    All annotated objects of a class count, however small, occluded or truncated; a van is
    neither hit nor miss for the class car, nor is a sitting person for pedestrian. The rules of
    matching are those of ``explain3d.metrics.detection_counts.count_detections``.

    Args:
        gt_annos: KITTI annotations (name, location, dimensions, rotation_y) of each frame, boxes
            in the camera frame with a bottom centre, dimensions l, h, w.
        dt_annos: The detections in the same form, with a score.
        classes: Classes to count.
        protocol: Score threshold and overlap.

    Returns:
        The counts of each class.

    Raises:
        UnknownNameError: If a class has no threshold.
        InputError: If boxes are not finite.
    """
    frames = []
    for gt_anno, dt_anno in zip(gt_annos, dt_annos, strict=True):
        objects, ignored = _objects(gt_anno, classes)
        detections = _boxes(dt_anno, [_index(name, classes) for name in dt_anno['name']], classes)
        frames.append(
            count_detections(
                detections, objects, protocol.score_thr, protocol.thr, protocol.iou, ignored
            )
        )
    return add_counts(frames)


def camera_to_lidar_axes(
    location: np.ndarray, dimensions: np.ndarray, rotation_y: np.ndarray
) -> torch.Tensor:
    """Returns KITTI boxes with the axes of the LiDAR frame and the origin of the camera's.

    Args:
        location: (K, 3) bottom centre in the camera frame (x right, y down, z forward), metres.
        dimensions: (K, 3) l, h, w, metres.
        rotation_y: (K,) yaw about the camera's y axis, radians; 0 where the front points right.

    Returns:
        (K, 7) float64 x, y, z, l, w, h, yaw: x forward, y left, z up, geometric centre.
    """
    x, y, z = np.asarray(location, dtype=np.float64).reshape(-1, 3).T
    length, height, width = np.asarray(dimensions, dtype=np.float64).reshape(-1, 3).T
    yaw = -np.asarray(rotation_y, dtype=np.float64) - np.pi / 2
    boxes = np.stack([z, -x, height / 2 - y, length, width, height, yaw], axis=1)
    return torch.from_numpy(boxes)


def _objects(anno: dict, classes: Sequence[str]) -> tuple[Detections, torch.Tensor]:
    """The annotated objects of a frame, neighbours under the class that they resemble; (G,) bool.

    The mask tells the neighbours. Objects of other classes keep label -1, which matches nothing.
    """
    labels, ignored = [], []
    for name in anno['name']:
        label = _index(name, classes)
        alike = _index(_NEIGHBOURS.get(name.lower(), name), classes)
        ignored.append(label < 0 <= alike)
        labels.append(alike if label < 0 else label)
    return _boxes(anno, labels, classes), torch.as_tensor(ignored, dtype=torch.bool)


def _boxes(anno: dict, labels: list[int], classes: Sequence[str]) -> Detections:
    return Detections(
        boxes=camera_to_lidar_axes(anno['location'], anno['dimensions'], anno['rotation_y']),
        scores=torch.as_tensor(np.asarray(anno['score'])),
        labels=torch.as_tensor(labels, dtype=torch.long),
        class_names=tuple(classes),
    )


def _index(name: str, classes: Sequence[str]) -> int:
    """The place of ``name`` among ``classes``, letter case ignored; -1 if it is none of them."""
    lower = [known.lower() for known in classes]
    return lower.index(name.lower()) if name.lower() in lower else -1
