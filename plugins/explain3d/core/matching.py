"""Which detection found which object: greedy matching by score, class by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .boxes import bev_iou, iou_3d
from .errors import InputError, UnknownNameError
from .structures import Detections

#: KITTI's and Waymo's overlaps above which a detection counts as found.
DEFAULT_THRESHOLDS: Mapping[str, float] = {
    'car': 0.7, 'vehicle': 0.7, 'pedestrian': 0.5, 'cyclist': 0.5,
}  # fmt: skip

OVERLAPS = {'3d': iou_3d, 'bev': bev_iou}

#: One IoU for all classes, one for each by name, or None for the default.
Thresholds = Mapping[str, float] | float | None


@dataclass(frozen=True)
class Matches:
    """The result of ``match`` for K detections and G objects.

    Attributes:
        indices: (K,) int64 index of each detection's object, -1 where it has none.
        overlaps: (K,) IoU with that object, 0 where there is none.
        found: (G,) bool, whether an object has a detection.
    """

    indices: Tensor
    overlaps: Tensor
    found: Tensor

    @property
    def true_positives(self) -> Tensor:
        """(K,) bool: detections that have an object."""
        return self.indices >= 0

    @property
    def false_positives(self) -> Tensor:
        """(K,) bool: detections that have none."""
        return self.indices < 0


def match(
    detections: Detections,
    ground_truth: Detections,
    thresholds: Thresholds = None,
    iou: str = '3d',
) -> Matches:
    """Matches detections with objects of the same class, one to one.

    Detections choose in the order of their scores (ties: the one listed first). Each takes, of
    the objects of its class that are still free and that it overlaps by more than the class's
    threshold, the one that it overlaps most (ties: the one listed first). Classes are compared by
    name, letter case ignored, so the two may number them differently.

    Args:
        detections: K detections.
        ground_truth: G annotated objects; their scores are not used.
        thresholds: IoU that must be exceeded: one number, or one for each class; letter case is
            ignored. Default: car and vehicle 0.7, pedestrian and cyclist 0.5.
        iou: '3d' (volumes) or 'bev' (bird's-eye view).

    Returns:
        Indices and overlaps, on the device of the detections.

    Raises:
        UnknownNameError: If ``iou`` is unknown, or a detection's class has no threshold.
        InputError: If a threshold is not in [0, 1), or boxes are malformed.
    """
    names = [name.lower() for name in detections.names()]
    limits = resolve_thresholds(names, thresholds)
    overlaps = overlap_function(iou)(detections.boxes, ground_truth.boxes)
    objects = np.array([name.lower() for name in ground_truth.names()], dtype=str)
    same_class = np.array(names, dtype=str)[:, None] == objects
    table = np.where(same_class, overlaps.double().cpu().numpy(), -1.0)
    order = torch.argsort(detections.scores, descending=True, stable=True).tolist()
    chosen = _choose(table, limits, order)

    device = detections.boxes.device
    indices = torch.as_tensor(chosen, dtype=torch.long, device=device)
    has_object = indices >= 0
    overlap = overlaps.new_zeros(len(detections))
    overlap[has_object] = overlaps[has_object, indices[has_object]]
    found = torch.zeros(len(ground_truth), dtype=torch.bool, device=device)
    found[indices[has_object]] = True
    return Matches(indices, overlap, found)


def resolve_thresholds(names: Sequence[str], thresholds: Thresholds = None) -> list[float]:
    """Returns the IoU threshold of each of the classes ``names``, letter case ignored.

    Args:
        names: Names of classes, in any number and order.
        thresholds: One number for all, one for each class by name, or None for the default: car
            and vehicle 0.7, pedestrian and cyclist 0.5.

    Raises:
        UnknownNameError: If a class has no threshold.
        InputError: If a threshold is not in [0, 1).
    """
    if thresholds is None:
        thresholds = DEFAULT_THRESHOLDS
    for_all = not isinstance(thresholds, Mapping)
    values = [thresholds] if for_all else list(thresholds.values())
    named = for_all or all(isinstance(name, str) for name in thresholds)
    if not named or not all(_is_threshold(value) for value in values):
        raise InputError(
            f'Expected IoU thresholds of at least 0 and below 1, received {thresholds}: '
            f'0.7 means that more than 70 % must overlap.'
        )
    if for_all:
        return [float(thresholds)] * len(names)
    known = {name.lower(): float(value) for name, value in thresholds.items()}
    unknown = sorted({name for name in names if name.lower() not in known})
    if unknown:
        more = ', '.join(f'{name!r}: 0.5' for name in unknown)
        raise UnknownNameError(
            f'Expected an IoU threshold for each class, received {sorted(known)} '
            f'and none for {unknown}: give one number for all, or add these classes. The key is '
            f'iou_thr, as iou_thr={{{more}, ...}}: of protocol for metrics (PROTOCOL: '
            "{IOU_THR: ...} in YAML), of select beside matched='tp' or 'fp' (SELECT)."
        )
    return [known[name.lower()] for name in names]


def _is_threshold(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < 1


def overlap_function(iou: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the overlap of all pairs of boxes called ``iou``, '3d' or 'bev'.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if iou not in OVERLAPS:
        raise UnknownNameError(
            f'Unknown overlap {iou!r}: expected one of {sorted(OVERLAPS)} '
            f'("bev" is the bird\'s-eye view).'
        )
    return OVERLAPS[iou]


def _choose(table: np.ndarray, limits: list[float], order: list[int]) -> list[int]:
    """The object that each detection takes, -1 for none, when they choose in ``order``.

    Args:
        table: (K, G) overlaps, -1 where the classes differ. Taken objects are struck out in it.
        limits: Overlap of each detection that must be exceeded.
        order: Detections in the order in which they choose.
    """
    chosen = [-1] * len(limits)
    if table.shape[1] == 0:
        return chosen
    for detection in order:
        best = int(table[detection].argmax())
        if table[detection, best] > limits[detection]:
            chosen[detection] = best
            table[:, best] = -1.0
    return chosen
