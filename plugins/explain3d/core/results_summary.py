"""Explanations as rows of a table: where does the saliency of each detection lie?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from .boxes import points_in_boxes
from .structures import Explanation

Row = dict[str, Any]

COLUMNS = (
    'frame', 'detection', 'class', 'score', 'distance', 'points', 'target', 'inside', 'top_inside',
)  # fmt: skip


def summarize(explanation: Explanation, targets: Sequence[str] | None = None) -> list[Row]:
    """Returns one row for each detection and target.

    Columns: ``frame``; ``detection``, the index among the frame's predictions where known;
    ``class``; ``score``; ``distance`` of the box from the sensor in the ground plane, metres;
    ``points`` in the box; ``target``; ``inside``, the share of the map's saliency in the predicted
    box; ``top_inside``, whether the most salient point lies in it (on ties, the share of the tied
    points). These describe a map at a glance; they are not the paper's metrics, which go by
    ground-truth boxes and a protocol. A map without any saliency gives NaN.

    Args:
        explanation: K detections, N points.
        targets: Names of the targets to report, default all.
    """
    detections, maps = explanation.detections, explanation.maps.saliency
    indices = explanation.detection_indices
    names = detections.names()
    rows = []
    in_boxes = points_in_boxes(explanation.points, detections.boxes)
    for k, inside in enumerate(in_boxes):
        row = {
            'frame': explanation.frame_id,
            'detection': k if indices is None else int(indices[k]),
            'class': names[k],
            'score': float(detections.scores[k]),
            'distance': math.hypot(*detections.boxes[k, :2].tolist()),
            'points': int(inside.sum()),
        }
        for target in maps if targets is None else targets:
            rows.append({**row, 'target': target, **_shares(maps[target][k], inside)})
    return rows


def _shares(saliency: Tensor, inside: Tensor) -> Row:
    total = saliency.double().sum() if len(saliency) else 0.0
    if total == 0:
        return {'inside': math.nan, 'top_inside': math.nan}
    top = saliency == saliency.max()
    return {
        'inside': float(saliency[inside].double().sum() / total),
        'top_inside': float(inside[top].double().mean()),
    }


def format_table(rows: Iterable[Row], columns: Sequence[str] | None = None) -> str:
    """Returns rows as aligned plain text: text to the left, numbers to the right.

    Args:
        rows: Dictionaries; a missing value, None and NaN show as ``-``.
        columns: Keys to show, in this order; default those of the first row.
    """
    rows = list(rows)
    columns = list(columns if columns is not None else (rows[0] if rows else COLUMNS))
    cells = [columns, *([_text(row.get(c)) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [any(isinstance(row.get(c), (int, float)) for row in rows) for c in columns]
    lines = [
        '  '.join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    rule = '  '.join('-' * width for width in widths)
    return '\n'.join((lines[0], rule, *lines[1:]))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)
