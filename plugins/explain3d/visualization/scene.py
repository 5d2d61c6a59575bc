"""What pictures take from an explanation, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..core.errors import InputError, UnknownNameError
from ..core.structures import Detections, Explanation
from .style import relative


@dataclass(frozen=True)
class Scene:
    """One frame's geometry.

    Attributes:
        points: (N, 3) x, y, z, metres.
        boxes: (K, 7) detected boxes.
        captions: K texts, class and score.
        scores: (K,) scores.
        truth: (G, 7) annotated boxes.
    """

    points: np.ndarray
    boxes: np.ndarray
    captions: list[str]
    scores: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, explanation: Explanation) -> Scene:
        """Takes the arrays from an explanation on any device."""
        detections, truth = explanation.detections, explanation.ground_truth
        return cls(
            points=array(explanation.points)[:, :3],
            boxes=array(detections.boxes).reshape(-1, 7),
            captions=captions(detections),
            scores=array(detections.scores),
            truth=np.zeros((0, 7)) if truth is None else array(truth.boxes).reshape(-1, 7),
        )

    def best(self, limit: int) -> list[int]:
        """Returns the indices of the ``limit`` detections with the highest scores, best first."""
        return np.argsort(-self.scores, kind='stable')[:limit].tolist()


def array(tensor: Tensor) -> np.ndarray:
    """Returns a tensor of any device and type as float64."""
    return tensor.detach().cpu().double().numpy()


def captions(detections: Detections) -> list[str]:
    """Returns "Car 0.93" for each detection."""
    pairs = zip(detections.names(), detections.scores.tolist(), strict=True)
    return [f'{name} {score:.2f}' for name, score in pairs]


def target_of(explanation: Explanation, target: str | None) -> str:
    """Returns ``target``, or the explanation's first one for None.

    Raises:
        UnknownNameError: If the explanation does not have it.
    """
    known = explanation.targets
    if target is None and known:
        return known[0]
    if target not in known:
        raise UnknownNameError(
            f'Frame {explanation.frame_id!r} has no saliency for the target {target!r}: expected '
            f'one of {list(known)}.'
        )
    return target


def check_detection(explanation: Explanation, detection: int) -> int:
    """Returns ``detection`` if there is such a one.

    Raises:
        InputError: If not.
    """
    count = len(explanation.detections)
    if not 0 <= detection < count:
        raise InputError(
            f'Frame {explanation.frame_id!r} has no detection {detection}: expected an index from '
            f'0 to {count - 1} among its {count} explained detections.'
        )
    return detection


def saliency_of(
    explanation: Explanation, detection: int | None = None, target: str | None = None
) -> np.ndarray:
    """Returns one map, or all detections' maps in one.

    Args:
        explanation: K detections, N points.
        detection: Which one; None: at each point the largest value over all detections, each
            detection's map over its own maximum first, so that every object shows.
        target: Which one; None: the first.

    Returns:
        (N,) in [0, 1], relative to the map's maximum.
    """
    if not len(explanation.detections):
        return np.zeros(len(explanation.points))
    maps = explanation.maps.saliency[target_of(explanation, target)]
    if detection is not None:
        return relative(array(maps[check_detection(explanation, detection)]))
    combined = np.zeros(maps.shape[1])
    for values in maps:
        np.maximum(combined, relative(array(values)), out=combined)
    return combined
