"""The checks of a benchmark that compare maps with each other: figures of records."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ...core.structures import Explanation, Maps, Trace
from ...metrics.protocol import Protocol
from ...metrics.removal import local_regions
from ...metrics.saliency import ObjectRecord
from ...metrics.sanity import randomisation, stability
from .frame_explainer import FrameExplainer

_LOG = logging.getLogger('explain3d')


def add_randomisation(
    records: Sequence[ObjectRecord],
    explanation: Explanation,
    trace: Trace,
    explainer: FrameExplainer,
    parts: Sequence[tuple[str, nn.Module]],
    protocol: Protocol,
) -> None:
    """Adds ``randomisation``, all weights shuffled, and ``randomisation_<part>`` on the way.

    Args:
        records: Of one frame and method, some of the explained detections.
        explanation: Of the frame.
        trace: That the explanation was made with.
        explainer: That made it.
        parts: Of the detector, the one next to the output first.
        protocol: Region and seed.
    """
    saliency = explanation.maps.saliency
    here = Maps({k: v.to(trace.points.device) for k, v in saliency.items()})
    try:
        found = randomisation(
            explainer.explainer, trace, explainer.targets, here, parts, protocol.seed,
            _regions(explanation, protocol),
        )  # fmt: skip
    except NotApplicableError as error:
        _LOG.warning('No randomisation for %s: %s', records[0].method, error)
        return
    last = list(found)[-1]
    for record in records:
        row = _row(explanation, record)
        for part, by_target in found.items():
            key = 'randomisation' if part == last else f'randomisation_{part}'
            record.figures[key] = float(by_target[record.target][row])


def add_stability(
    records: Sequence[ObjectRecord],
    explanation: Explanation,
    again: Explanation,
    protocol: Protocol,
) -> None:
    """Adds ``stability``.

    Args:
        records: Of one frame and method, some of the explained detections.
        explanation: Of the frame.
        again: Of the frame with jittered points, all of its detections.
        protocol: The region.
    """
    for target, maps in explanation.maps.saliency.items():
        values = stability(
            maps, explanation.detections, again.maps.saliency[target], again.detections,
            regions=_regions(explanation, protocol),
        )  # fmt: skip
        for record in records:
            if record.target == target:
                record.figures['stability'] = float(values[_row(explanation, record)])


def _regions(explanation: Explanation, protocol: Protocol) -> Tensor:
    """(K, N) the points around each detection over which maps are compared with each other."""
    boxes = explanation.detections.boxes
    return local_regions(explanation.points, boxes, protocol.region_factor)


def _row(explanation: Explanation, record: ObjectRecord) -> int:
    """Returns which of the explained detections a record is about."""
    return explanation.detection_indices.tolist().index(record.detection)
