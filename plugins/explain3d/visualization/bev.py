"""Bird's-eye views: x (forward) to the right, y (left) upwards, metres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.errors import InputError
from ..core.structures import Explanation
from .draw import (
    NO_SALIENCY,
    draw_bev_boxes,
    draw_captions,
    draw_colour_bar,
    draw_legend,
    draw_points,
    draw_remark,
    draw_rings,
    draw_scale_bar,
    draw_sensor,
    panel_width,
)
from .geometry import inside_extent, page_extent
from .scene import Scene, check_detection, saliency_of, target_of
from .style import Canvas, Style, join_title, style_of

#: More captions than this only hide the points.
MAX_CAPTIONS = 40


def bev(
    explanation: Explanation,
    detection: int | None = None,
    target: str | None = None,
    *,
    extent: Sequence[float] | str = 'boxes',
    width: float = 7.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws a frame's saliency from above.

    Args:
        explanation: K detections, N points.
        detection: Whose map; None: the largest of all detections, each over its own maximum.
        target: Which target's map; None: the first.
        extent: x_min, x_max, y_min, y_max in metres; ``'boxes'``: what holds the sensor and all
            boxes (all points if there is no box); ``'points'``: nearly all points.
        width: Of the figure, inches.
        title: Above the picture; None: frame, method and target; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there is no such detection.
        UnknownNameError: If there is no such target.
    """
    scene, style = Scene.of(explanation), style_of(style)
    values = saliency_of(explanation, detection, target)
    title = describe(explanation, detection, target) if title is None else title
    return bev_figure(scene, values, title, detection, extent, width, style)


def bev_figure(
    scene: Scene,
    values: np.ndarray,
    title: str,
    detection: int | None,
    extent: Sequence[float] | str,
    width: float,
    style: Style,
    meaning: str = 'saliency',
) -> Figure:
    """Draws any (N,) map in [0, 1] from above, with title and colour bar; see ``bev``."""
    extent = fit_extent(scene, extent, 0.4, 1.1)
    height = width * (extent[3] - extent[2]) / (extent[1] - extent[0])
    header = 0.28
    canvas = Canvas(width, header + height, style)
    axes = canvas.axes(0, header, width, height)
    draw_bev(axes, scene, values, extent, style, detection)
    canvas.text(0.08, header / 2, title, **style.font(1))
    draw_colour_bar(canvas, width - 1.35, header / 2 - 0.045, 1.0, 0.09, meaning)
    return canvas.figure


def draw_bev(
    axes: Axes,
    scene: Scene,
    values: np.ndarray,
    extent: np.ndarray,
    style: Style,
    detection: int | None = None,
    *,
    plain: bool = False,
) -> None:
    """Draws a bird's-eye view on axes whose aspect is that of ``extent``.

    Args:
        axes: Where; their limits are set.
        scene: N points, K boxes.
        values: (N,) saliency in [0, 1].
        extent: (4,) x_min, x_max, y_min, y_max, metres.
        style: Colours and fonts.
        detection: Drawn stronger than the others, which then have no caption.
        plain: For small pictures: fewer of the cold points, thin boxes, nothing else.
    """
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_aspect('equal', adjustable='box')
    inside = inside_extent(scene.points, extent)
    if plain:
        inside &= _thinned(values)
    cold = 0.35 * panel_width(axes) / 7 * np.clip(60_000 / max(inside.sum(), 1), 0.6, 6)
    shown = values[inside]
    draw_points(axes, scene.points[inside, :2], shown, cold * (1 + 4 * shown), style)
    line = 0.4 if plain else 1.0
    draw_sensor(axes, style, size=2.5 if plain else 5.0)
    others = [k for k in range(len(scene.boxes)) if k != detection]
    faint = 1.0 if detection is None else 0.5
    draw_bev_boxes(axes, scene.boxes[others], style.detection, width=line, alpha=faint)
    if detection is not None:
        chosen = scene.boxes[[detection]]
        draw_bev_boxes(axes, chosen, style.detection, width=1.3 * line, gid='chosen')
    if not plain:
        ranges = draw_rings(axes, extent, style)
        draw_bev_boxes(axes, scene.truth, style.truth, dashed=True, width=0.8, gid='truth')
        draw_scale_bar(axes, style)
        if len(scene.truth):
            draw_legend(axes, style)
        order = scene.best(MAX_CAPTIONS) if detection is None else [detection]
        draw_captions(axes, scene.boxes, scene.captions, order, style, ranges)
        if len(scene.boxes) and not values.any():
            draw_remark(axes, NO_SALIENCY, style)


def _thinned(values: np.ndarray, limit: int = 30_000) -> np.ndarray:
    """Keeps all points with saliency, and of the others about ``limit``: (N,) bool."""
    stride = max(len(values) // limit, 1)
    return (values > 0.02) | (np.arange(len(values)) % stride == 0)


def fit_extent(
    scene: Scene, extent: Sequence[float] | str, flattest: float, tallest: float
) -> np.ndarray:
    """Returns the extent asked for, or one that fits the scene and the page.

    Args:
        scene: Points and boxes.
        extent: As for ``bev``; numbers are returned unchanged.
        flattest: Least height over width.
        tallest: Largest height over width.

    Raises:
        InputError: If it is neither a known word nor four numbers in order.
    """
    if isinstance(extent, str) and extent in ('boxes', 'points'):
        boxes = np.concatenate((scene.boxes, scene.truth))[: None if extent == 'boxes' else 0]
        return page_extent(boxes, scene.points, flattest, tallest)
    numbers = np.array([] if isinstance(extent, str) else extent, np.float64)
    if numbers.shape != (4,) or numbers[0] >= numbers[1] or numbers[2] >= numbers[3]:
        raise InputError(
            f"extent is {extent!r}: expected 'boxes', 'points', or (x_min, x_max, y_min, y_max)."
        )
    return numbers


def describe(explanation: Explanation, detection: int | None, target: str | None) -> str:
    """Returns "000008 · FFAM · target yaw · detection 2"."""
    count = len(explanation.detections)
    what = f'target {target_of(explanation, target)}' if explanation.targets else ''
    if detection is None:
        which = f'{count} detection{"" if count == 1 else "s"}'
    else:
        which = f'detection {check_detection(explanation, detection)}'
    return join_title(explanation.frame_id, explanation.method, what, which)
