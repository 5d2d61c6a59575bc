"""Sensor shares of many detections as a table: by class, range and tag, and what blanking does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.checks import require_numbers
from ..core.errors import InputError
from .detections import LOGIT, SensorShares
from .tags import FrameTags

ALL = 'all'
#: Fewer detections have no correlation.
_LEAST = 3


@dataclass(frozen=True)
class BoxShares:
    """One detection as the table counts it.

    Attributes:
        frame: Name of the frame.
        index: Which of the frame's detections that were read out.
        category: Name of the class.
        score: In [0, 1].
        distance: Of the box from the sensor in the ground plane, metres.
        logit: The raw classification output.
        parts: Each component's part of it, signed.
        shares: For each attribute, each component's |h_m| / sum |h|, in the order of ``parts``.
        lost: For each sensor that was blanked, whether no box was found any more.
        drops: Likewise, the logit minus that at the same place without the sensor; NaN if there is
            none at that place.
        tags: Those of the frame and of the object that it is on.
    """

    frame: str
    index: int
    category: str
    score: float
    distance: float
    logit: float
    parts: Mapping[str, float]
    shares: Mapping[str, Sequence[float]]
    lost: Mapping[str, bool]
    drops: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Mean figures of the detections of a class, range and tag; NaN where nothing defines them.

    Attributes:
        category: The class, or 'all'.
        range: (from, to) metres, to may be infinite.
        boxes: Number of detections.
        shares: Mean share of each component in the logit.
        parts: Mean part of each component of the logit, signed; they sum to ``logit``.
        logit: Mean logit.
        lost: For each sensor that was blanked, the part of the detections that are lost then.
        drops: Likewise, the mean drop of the logit where it is defined.
        share_effect: Likewise, Pearson correlation over the detections of share and drop.
        part_effect: Likewise, of signed part and drop.
        tag: (name, value) that all of them have; None: whatever they have.
    """

    category: str
    range: tuple[float, float]
    boxes: int
    shares: Mapping[str, float]
    parts: Mapping[str, float]
    logit: float
    lost: Mapping[str, float]
    drops: Mapping[str, float]
    share_effect: Mapping[str, float]
    part_effect: Mapping[str, float]
    tag: tuple[str, str] | None = None

    @property
    def title(self) -> str:
        """The class, the range and the tag, in words."""
        tag = '' if self.tag is None else f', {self.tag[0]} {self.tag[1]}'
        return self._where() + tag

    def _where(self) -> str:
        low, high = self.range
        name = 'all' if self.category == ALL else self.category
        if math.isinf(high):
            return f'{name} boxes' + (f' beyond {low:g} m' if low else '')
        return f'{name} boxes within {low:g} to {high:g} m'


@dataclass(frozen=True)
class SensorTable:
    """What a data set's detections are made of.

    Attributes:
        names: The M modalities, then 'bias'.
        groups: All detections, then by range, then by class, then by both, then by tag; no empty
            ones.
        attributes: Mean share of each component in each raw attribute, over all detections.
        protocol: What decided the figures, as plain data.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    attributes: Mapping[str, Mapping[str, float]]
    protocol: Mapping[str, Any]


def boxes_of(
    frame: SensorShares, tags: FrameTags | None = None, overlap: float = 0.1
) -> list[BoxShares]:
    """Returns the detections of a frame as the table counts them.

    Args:
        frame: The frame.
        tags: What is known of it and of its objects.
        overlap: As in ``FrameTags.of``.
    """
    each_tags = (tags or FrameTags()).of(frame.detections.boxes, overlap)
    parts, names = frame.parts, frame.detections.names()
    shares = {attribute: parts.shares(attribute).tolist() for attribute in parts.attributes}
    logits, each = parts.of_value(LOGIT).tolist(), parts[LOGIT].tolist()
    column = parts.attributes.index(LOGIT)
    return [
        BoxShares(
            frame=frame.frame_id,
            index=k,
            category=names[k],
            score=float(frame.detections.scores[k]),
            distance=math.hypot(*frame.detections.boxes[k, :2].tolist()),
            logit=logits[k],
            parts=dict(zip(parts.names, each[k], strict=True)),
            shares={attribute: values[k] for attribute, values in shares.items()},
            lost={sensor: not bool(e.found[k]) for sensor, e in frame.effects.items()},
            drops={
                sensor: logits[k] - float(e.raw[k, column]) for sensor, e in frame.effects.items()
            },
            tags=each_tags[k],
        )
        for k in range(len(parts))
    ]


def require_edges(edges: Sequence[float]) -> list[float]:
    """Returns where ranges begin, metres.

    Args:
        edges: Finite numbers, ascending.

    Raises:
        InputError: If they are something else.
    """
    found = [float(edge) for edge in require_numbers('edges', edges)]
    if found != sorted(set(found)):
        raise InputError(
            f'Expected ascending edges of ranges, metres, received {edges}: write (0, 20, 40), for '
            'example.'
        )
    return found


def table_of(
    boxes: Iterable[BoxShares],
    edges: Sequence[float] = (0, 20, 40),
    protocol: Mapping[str, Any] | None = None,
) -> SensorTable:
    """Returns the table of detections.

    Args:
        boxes: Of one run: the same components, attributes and blanked sensors.
        edges: Where ranges begin, metres, ascending; the last has no end.
        protocol: What decided the figures.

    Raises:
        InputError: If there are no detections, or edges do not ascend.
    """
    boxes, edges = list(boxes), require_edges(edges)
    if not boxes:
        raise InputError('Expected detections for a table, received none: lower score_thr.')
    categories = sorted({box.category for box in boxes})
    ranges = list(zip(edges, [*edges[1:], math.inf], strict=True))
    whole = (0.0, math.inf)
    wanted = [(ALL, whole), *((ALL, r) for r in ranges if r != whole)]
    for category in categories:
        wanted += [(category, whole), *((category, r) for r in ranges if r != whole)]
    groups = [_group(boxes, category, limits) for category, limits in wanted]
    groups += [_group(boxes, ALL, whole, tag) for tag in _tags_of(boxes)]
    names = tuple(boxes[0].parts)
    attributes = {
        attribute: dict(zip(names, _mean([b.shares[attribute] for b in boxes]), strict=True))
        for attribute in boxes[0].shares
    }
    found = tuple(group for group in groups if group is not None)
    return SensorTable(names, found, attributes, dict(protocol or {}))


def _tags_of(boxes: Sequence[BoxShares]) -> list[tuple[str, str]]:
    """All (name, value), in the order of the alphabet."""
    return sorted({tag for box in boxes for tag in box.tags.items()})


def _group(
    boxes: Sequence[BoxShares],
    category: str,
    limits: tuple[float, float],
    tag: tuple[str, str] | None = None,
) -> Group | None:
    chosen = [
        box
        for box in boxes
        if category in (ALL, box.category)
        and limits[0] <= box.distance < limits[1]
        and (tag is None or box.tags.get(tag[0]) == tag[1])
    ]
    if not chosen:
        return None
    names, sensors = list(chosen[0].parts), list(chosen[0].lost)
    shares = np.array([box.shares[LOGIT] for box in chosen], np.float64)
    parts = np.array([list(box.parts.values()) for box in chosen], np.float64)
    drops = {sensor: np.array([box.drops[sensor] for box in chosen]) for sensor in sensors}
    columns = {sensor: names.index(sensor) for sensor in sensors}
    return Group(
        category,
        limits,
        len(chosen),
        shares=dict(zip(names, _mean(shares), strict=True)),
        parts=dict(zip(names, parts.mean(0).tolist(), strict=True)),
        logit=float(np.mean([box.logit for box in chosen])),
        lost={s: float(np.mean([box.lost[s] for box in chosen])) for s in sensors},
        drops={s: _mean(drops[s][:, None])[0] for s in sensors},
        share_effect={s: correlation(shares[:, columns[s]], drops[s]) for s in sensors},
        part_effect={s: correlation(parts[:, columns[s]], drops[s]) for s in sensors},
        tag=tag,
    )


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Pearson's correlation of two (n,); NaN for fewer than 3 pairs or without variance."""
    defined = np.isfinite(a) & np.isfinite(b)
    a, b = a[defined], b[defined]
    if len(a) < _LEAST or not np.ptp(a) or not np.ptp(b):
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: Any) -> list[float]:
    """Means over rows, NaN left out; NaN where nothing is left."""
    values = np.asarray(values, np.float64)
    defined = ~np.isnan(values)
    count = defined.sum(0)
    total = np.where(defined, values, 0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.nan).tolist()
