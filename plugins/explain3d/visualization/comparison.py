"""Objects under several methods side by side (Fig. 3 of FFAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..core.boxes import points_in_boxes
from ..core.errors import InputError
from ..core.structures import Explanation
from .draw import NO_SALIENCY, draw_colour_bar, draw_remark
from .perspective import draw_object
from .scene import Scene, array, check_detection, saliency_of
from .style import Canvas, Style, join_title, style_of

#: A frame's explanations by the name of the method, and which of its detections to show.
Row = tuple[Mapping[str, Explanation], int]


def method_panel(
    rows: Sequence[Row],
    target: str | None = None,
    *,
    region: float = 1.0,
    cell: float = 1.15,
    columns: int | None = None,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws objects, a row each, as every method explains them, a column each.

    Colours are over each map's own maximum over the *frame*, which may lie outside of the picture.

    Args:
        rows: For each object, its frame's explanations by the name of the method, all of the same
            detections, and the index of the detection. The same methods in all rows.
        target: Which target's map; None: the first.
        region: Radius of the shown neighbourhood in bird's-eye-view diagonals of the box.
        cell: Width of a panel, inches.
        columns: Panels side by side before an object goes on in another line; None: all.
        title: Above the picture; None: the target; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there are no rows or methods, there is no such detection, or methods or
            detections differ.
        UnknownNameError: If there is no such target.
    """
    methods = _common_methods(rows)
    style = style_of(style)
    columns = min(columns or len(methods), len(methods))
    lines = -(-len(methods) // columns)
    header, label, caption, gap, bar = 0.28, 0.17, 0.17, 0.05, 0.42
    height = 0.8 * cell
    block = caption + lines * (label + height + gap)
    width = max(columns * (cell + gap), 3.0) + bar
    canvas = Canvas(width, header + len(rows) * block, style)
    for number, (explanations, detection) in enumerate(rows):
        top = header + number * block
        first = next(iter(explanations.values()))
        canvas.text(0.06, top + caption / 2, _caption(first, detection), **style.font(-1))
        for place, name in enumerate(methods):
            left = place % columns * (cell + gap)
            line = top + caption + place // columns * (label + height + gap)
            heading = style.font(-0.5, ha='center')
            canvas.text(left + cell / 2, line + label / 2, name, **heading)
            axes = canvas.axes(left, line + label, cell, height)
            values = saliency_of(explanations[name], detection, target)
            scene = Scene.of(explanations[name])
            draw_object(axes, scene, detection, values, style, region=region, caption=False)
            if not values.any():
                draw_remark(axes, NO_SALIENCY, style)
    if title is None:
        title = join_title('Saliency by method', f'target {target or first.targets[0]}')
    canvas.text(0.06, header / 2, title, **style.font(1))
    draw_colour_bar(canvas, width - bar + 0.04, header + caption + label, 0.07, 0.9 * height)
    return canvas.figure


def choose_detections(explanation: Explanation, classes: Sequence[str]) -> dict[str, int]:
    """Returns for each class the detection with the most points in its box, by the class's name.

    Args:
        explanation: K detections, N points.
        classes: Names of classes, letter case ignored; one without detections is left out.
    """
    counts = points_in_boxes(explanation.points, explanation.detections.boxes).sum(dim=1)
    names = [name.lower() for name in explanation.detections.names()]
    found = {}
    for wanted in classes:
        rows = [k for k, name in enumerate(names) if name == wanted.lower()]
        if rows:
            found[wanted] = max(rows, key=lambda k: int(counts[k]))
    return found


def _common_methods(rows: Sequence[Row]) -> list[str]:
    if not rows or not rows[0][0]:
        raise InputError(
            f'Expected at least one object and one method to draw, received {len(rows)} objects.'
        )
    methods = list(rows[0][0])
    for explanations, detection in rows:
        if list(explanations) != methods:
            raise InputError(
                f'Expected the same methods for all objects, {methods}, received '
                f'{list(explanations)}.'
            )
        boxes = [array(e.detections.boxes) for e in explanations.values()]
        for name, explanation, own in zip(methods, explanations.values(), boxes, strict=True):
            check_detection(explanation, detection)
            if own.shape != boxes[0].shape or not np.allclose(own, boxes[0], atol=1e-3):
                raise InputError(
                    f'Frame {explanation.frame_id!r}: expected {name} to explain the same '
                    f'detections as {methods[0]}, received others: run all with one selection.'
                )
    return methods


def _caption(explanation: Explanation, detection: int) -> str:
    scene = Scene.of(explanation)
    distance = float(np.hypot(*scene.boxes[detection][:2]))
    return join_title(
        scene.captions[detection], f'{distance:.0f} m away', f'frame {explanation.frame_id}'
    )
