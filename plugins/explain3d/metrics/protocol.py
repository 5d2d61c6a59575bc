"""How saliency maps are measured: every figure carries this along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..core.checks import (
    require_dict,
    require_number,
    require_numbers,
    require_text,
    require_whole,
    suggestion,
)
from ..core.errors import InputError
from ..core.matching import DEFAULT_THRESHOLDS, overlap_function, resolve_thresholds


@dataclass(frozen=True)
class Protocol:
    """The choices that the text of FFAM leaves open (docs/metrics.md), and those it makes.

    Attributes:
        steps: Points of the Deletion and Insertion curves: fractions 0, 1 / (steps - 1), ... 1.
        region_factor: The local region are the points whose bird's-eye-view distance to the
            centre of the object is below this many diagonals of its footprint.
        score_thr: Candidates with a score above this count in a step.
        iou_thr: IoU that a detection has to exceed to be the subject of a measurement, by class
            (letter case ignored), or one for all; None: car and vehicle 0.7, pedestrian and cyclist
            0.5.
        iou: The overlap of that match, '3d' or 'bev'. A step's score is always the 3D IoU.
        vea_thresholds: Saliency above which a point counts as marked.
        seed: Of the permutation that decides between equally salient points.
        jitter: Standard deviation of the noise on the points for stability, metres.
        detector: What was explained: a digest of its weights, or another name for it.

    Raises:
        InputError: If a value is out of its range.
        UnknownNameError: If ``iou`` is unknown.
    """

    steps: int = 11
    region_factor: float = 2.0
    score_thr: float = 0.1
    iou_thr: Mapping[str, float] | float | None = None
    iou: str = '3d'
    vea_thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    seed: int = 0
    jitter: float = 0.01
    detector: str = ''

    def __post_init__(self) -> None:
        require_whole('steps', self.steps, least=None)
        require_number('region_factor', self.region_factor)
        require_number('score_thr', self.score_thr)
        require_number('jitter', self.jitter, least=0)
        require_whole('seed', self.seed, least=0)
        if not isinstance(self.detector, str):
            require_text('detector', self.detector, 'my-weights', optional=False)
        if self.steps < 2 or self.region_factor <= 0 or not 0 <= self.score_thr < 1:
            raise InputError(
                f'Expected steps >= 2, region_factor > 0 and 0 <= score_thr < 1, received '
                f'{self.steps}, {self.region_factor} and {self.score_thr}.'
            )
        thresholds = tuple(map(float, require_numbers('vea_thresholds', self.vea_thresholds)))
        if not all(0 <= t < 1 for t in thresholds):
            raise InputError(
                f'Expected vea_thresholds of at least 0 and below 1, received {thresholds}.'
            )
        limits = DEFAULT_THRESHOLDS if self.iou_thr is None else self.iou_thr
        if isinstance(limits, Mapping):
            limits = {name.lower(): float(value) for name, value in sorted(limits.items())}
        overlap_function(self.iou)
        resolve_thresholds([], limits)
        object.__setattr__(self, 'vea_thresholds', thresholds)
        object.__setattr__(self, 'iou_thr', limits)

    def as_dict(self) -> dict[str, Any]:
        """Returns the protocol as plain data."""
        return {**asdict(self), 'vea_thresholds': list(self.vea_thresholds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """Returns the protocol that ``as_dict`` gave.

        Raises:
            InputError: If a key is unknown.
        """
        known = {field.name for field in fields(cls)}
        values = require_dict('protocol', values, 'dict(steps=11, score_thr=0.1)')
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                f'Unknown part of a protocol {unknown}: expected some of {sorted(known)}.'
                f'{suggestion(unknown[0], known)}'
            )
        return cls(**values)

    def text(self) -> str:
        """Returns one line to print beside figures."""
        iou_thr = self.iou_thr
        if isinstance(iou_thr, Mapping):
            iou_thr = ', '.join(f'{name} {value:g}' for name, value in iou_thr.items())
        return (
            f'{self.steps} steps; region: BEV distance < {self.region_factor:g} x diagonal of the '
            f'ground-truth box; step score: highest 3D IoU among candidates of the class above '
            f'score {self.score_thr:g} in the region, no caps; subjects: {self.iou} IoU > '
            f'({iou_thr}), greedy by score; VEA at {len(self.vea_thresholds)} thresholds '
            f'({self.vea_thresholds[0]:g} to {self.vea_thresholds[-1]:g}); maps of jittered points '
            f'({self.jitter:g} m) and random weights are compared in the region; ties, jitter and '
            f'weights by seed {self.seed}; detector {self.detector or "not named"}'
        )


def common_protocol(protocols: Iterable[Mapping[str, Any]]) -> Protocol:
    """Returns the protocol that all figures of a table share.

    Args:
        protocols: That of each record, as plain data.

    Raises:
        InputError: If two differ; the message says in what. Or if there is none.
    """
    found = {json.dumps(dict(p), sort_keys=True): dict(p) for p in protocols}
    if not found:
        raise InputError('Expected records, received none: no detection matched an object.')
    first, *others = found.values()
    for other in others:
        keys = sorted(k for k in {*first, *other} if first.get(k) != other.get(k))
        difference = {k: (first.get(k), other.get(k)) for k in keys}
        raise InputError(
            f'Two protocols in one table, which differ in {difference}: expected figures made '
            'by one. Make a table for each.'
        )
    return Protocol.from_dict(first)
