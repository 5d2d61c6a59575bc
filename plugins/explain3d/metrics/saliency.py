"""All metrics of the saliency maps of a frame, object by object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.black_box import BlackBox
from ..core.boxes import points_in_boxes
from ..core.checks import require_names, suggestion
from ..core.errors import InputError, UnknownNameError
from ..core.matching import match
from ..core.normalize import require_finite
from ..core.structures import Explanation
from .curves import Curves, perturbation_curves
from .localization import energy_pointing_game, explanation_accuracy, pointing_game
from .map_statistics import gini
from .protocol import Protocol
from .removal import area

#: What can be asked for, and the figures that it gives.
METRICS: Mapping[str, tuple[str, ...]] = {
    'deletion': ('deletion',),
    'insertion': ('insertion',),
    'vea': ('vea', 'vea_max'),
    'pg': ('pg',),
    'enpg': ('enpg',),
    'sparseness': ('sparseness',),
}
#: Whether more of a figure is better; None where it is no merit.
HIGHER_IS_BETTER: Mapping[str, bool | None] = {
    'deletion': False,
    'insertion': True,
    'vea': True,
    'vea_max': True,
    'pg': True,
    'enpg': True,
    'sparseness': None,
    'stability': True,
    'randomisation': False,
    'seconds': False,
    'passes': False,
}
_PERTURBING = ('deletion', 'insertion')


@dataclass
class ObjectRecord:
    """The figures of one map of one object.

    Attributes:
        frame: The frame's name.
        object: Index of the object among the frame's annotated ones.
        detection: Index of its detection among the frame's predictions.
        category: Its class.
        method: What made the map.
        target: What of the detection is explained.
        iou: Of the detection with the object.
        score: Of the detection.
        distance: Of the object from the sensor in the bird's-eye view, metres.
        points: Points in its box.
        figures: By name; NaN where one is not defined.
        curves: Scores by step, of 'deletion' and 'insertion'.
        protocol: That made the figures, as plain data.
    """

    frame: str
    object: int
    detection: int
    category: str
    method: str
    target: str
    iou: float
    score: float
    distance: float
    points: int
    figures: dict[str, float]
    curves: dict[str, list[float]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Names the object in the data set."""
        return f'{self.frame}/{self.object}'


def require_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Returns ``names`` if all are known.

    Raises:
        UnknownNameError: If one is not.
    """
    names = require_names('metrics', names, 'deletion', optional=False)
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UnknownNameError(
            f'Unknown metrics {unknown}: expected some of {list(METRICS)}.'
            f'{suggestion(unknown[0], METRICS)}'
        )
    return tuple(names)


def require_finite_maps(explanation: Explanation, method: str) -> None:
    """Refuses an explanation with a value that is not finite.

    Raises:
        InputError: If there is one; the message names frame, method and target.
    """
    for target, values in explanation.maps.saliency.items():
        try:
            require_finite(values, 'map')
        except InputError as error:
            raise InputError(
                f'Frame {explanation.frame_id!r}, {method}, target {target!r}: {error}'
            ) from error


class SaliencyEvaluator:
    """Measures explanations of a detector's frames, whatever its host.

    Args:
        protocol: How.
        metrics: Which.

    Raises:
        UnknownNameError: If a metric is unknown.
    """

    def __init__(
        self, protocol: Protocol | None = None, metrics: Sequence[str] = tuple(METRICS)
    ) -> None:
        self.protocol = protocol or Protocol()
        self.metrics = require_metrics(metrics)

    def evaluate(
        self, explanations: Mapping[str, Explanation], box: BlackBox | None = None
    ) -> list[ObjectRecord]:
        """Measures what several methods say about one frame.

        Args:
            explanations: By the name of the method; of one frame and the same detections.
            box: The detector, for Deletion and Insertion.

        Returns:
            A record for each detection that matched an object, method and target. A frame without
            such detections gives none.

        Raises:
            InputError: If a map is not finite (the message names frame and method), there are no
                annotations, the frames or detections differ, or ``box`` is missing.
            UnknownNameError: If a class has no threshold.
        """
        if not explanations:
            return []
        frame = _common_frame(explanations)
        if frame.ground_truth is None:
            raise InputError(
                f'Frame {frame.frame_id!r}: expected annotated objects, received none: use a '
                'split whose annotations are loaded.'
            )
        matches = match(
            frame.detections, frame.ground_truth, self.protocol.iou_thr, self.protocol.iou
        )
        rows = matches.true_positives.nonzero().flatten()
        maps = _checked_maps(explanations, rows)
        if len(rows) == 0:
            return []
        truth = frame.ground_truth[matches.indices[rows]]
        inside = points_in_boxes(frame.points, truth.boxes)
        curves = self._curves(frame, maps, truth.boxes, rows, box)
        distance = truth.boxes[:, :2].norm(dim=1)
        kept = frame.detection_indices
        kept = torch.arange(len(frame.detections)) if kept is None else kept
        records = []
        for (method, target), values in maps.items():
            figures = self._figures(values, inside, curves.get((method, target)))
            for i, row in enumerate(rows.tolist()):
                records.append(
                    ObjectRecord(
                        frame=frame.frame_id,
                        object=int(matches.indices[row]),
                        detection=int(kept[row]),
                        category=truth.names()[i],
                        method=method,
                        target=target,
                        iou=float(matches.overlaps[row]),
                        score=float(frame.detections.scores[row]),
                        distance=float(distance[i]),
                        points=int(inside[i].sum()),
                        figures={name: float(column[i]) for name, column in figures.items()},
                        curves=_curves_of(curves.get((method, target)), i, self.metrics),
                        protocol=self.protocol.as_dict(),
                    )
                )
        return records

    def _curves(
        self,
        frame: Explanation,
        maps: Mapping[tuple[str, str], Tensor],
        boxes: Tensor,
        rows: Tensor,
        box: BlackBox | None,
    ) -> dict[tuple[str, str], Curves]:
        if not set(_PERTURBING) & set(self.metrics):
            return {}
        if box is None:
            raise InputError(
                f'Frame {frame.frame_id!r}: expected the detector for Deletion and Insertion, '
                'received none: measure while explaining, or leave the two out.'
            )
        labels = frame.detections.labels[rows].tolist()
        names = {str(i): key for i, key in enumerate(maps)}
        wanted = {i: maps[key] for i, key in names.items()}
        kinds = tuple(kind for kind in _PERTURBING if kind in self.metrics)
        found = perturbation_curves(box, frame.points, wanted, boxes, labels, self.protocol, kinds)
        return {names[i]: curves for i, curves in found.items()}

    def _figures(self, maps: Tensor, inside: Tensor, curves: Curves | None) -> dict[str, Tensor]:
        figures: dict[str, Tensor] = {}
        if 'deletion' in self.metrics:
            figures['deletion'] = area(curves.deletion)
        if 'insertion' in self.metrics:
            figures['insertion'] = area(curves.insertion)
        if 'vea' in self.metrics:
            found = explanation_accuracy(maps, inside, self.protocol.vea_thresholds)
            figures['vea'], figures['vea_max'] = found
        if 'pg' in self.metrics:
            figures['pg'] = pointing_game(maps, inside)
        if 'enpg' in self.metrics:
            figures['enpg'] = energy_pointing_game(maps, inside)
        if 'sparseness' in self.metrics:
            figures['sparseness'] = gini(maps)
        return figures


def _common_frame(explanations: Mapping[str, Explanation]) -> Explanation:
    """Returns one of the explanations, if all are of the same frame and detections."""
    (first_name, first), *others = explanations.items()
    for name, other in others:
        same = (
            other.frame_id == first.frame_id
            and other.points.shape == first.points.shape
            and other.detections.boxes.shape == first.detections.boxes.shape
            and torch.equal(other.points, first.points)
            and torch.equal(other.detections.labels, first.detections.labels)
            and torch.allclose(other.detections.boxes, first.detections.boxes, atol=1e-3)
        )
        if not same:
            raise InputError(
                f'Frame {first.frame_id!r}: expected {name} to explain the same points and '
                f'detections as {first_name}, received those of {other.frame_id!r}, '
                f'{len(other.detections)} of them: run all methods with one selection.'
            )
    return first


def _checked_maps(
    explanations: Mapping[str, Explanation], rows: Tensor
) -> dict[tuple[str, str], Tensor]:
    """(K', N) maps of the rows, by method and target; a map that is not finite is an error."""
    maps = {}
    for method, explanation in explanations.items():
        require_finite_maps(explanation, method)
        for target, values in explanation.maps.saliency.items():
            maps[method, target] = values[rows]
    return maps


def _curves_of(curves: Curves | None, row: int, metrics: Sequence[str]) -> dict[str, list[float]]:
    if curves is None:
        return {}
    return {kind: getattr(curves, kind)[row].tolist() for kind in _PERTURBING if kind in metrics}
