"""Panels of several maps: the frame's concepts, and one object's attributes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.errors import NotApplicableError, UnknownNameError
from ..core.structures import Explanation
from .bev import bev_figure, draw_bev, fit_extent
from .draw import (
    Z_TEXT,
    draw_bev_boxes,
    draw_colour_bar,
    draw_points,
    draw_wireframe,
    panel_aspect,
    panel_width,
)
from .geometry import Camera, box_corners, diagonal, inside_extent, to_box
from .perspective import draw_object, neighbourhood, point_area
from .scene import Scene, array, check_detection, saliency_of, target_of
from .style import Canvas, Style, join_title, relative, style_of

#: How Fig. 4 of FFAM calls the targets.
SYMBOLS = {'all': 'd', 'center': 'x, y, z', 'yaw': 'r', 'score': 's'}


def global_view(
    explanation: Explanation,
    *,
    view: str = 'perspective',
    extent: Sequence[float] | str = 'boxes',
    width: float = 7.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws the object-independent map V (Eq. 4 and Fig. 1a of FFAM).

    Args:
        explanation: With a global map over N points.
        view: ``'perspective'``, from above and behind the scene, or ``'bev'``.
        extent: The part of the ground that is shown, see ``bev``.
        width: Of the figure, inches.
        title: Above the picture; None: frame and method; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        NotApplicableError: If the method has no global map.
        UnknownNameError: If there is no such view.
    """
    if explanation.maps.global_map is None:
        raise NotApplicableError(
            f'{explanation.method} has no global map in frame {explanation.frame_id!r}: expected '
            'an explanation by a method that factorises features, such as FFAM.'
        )
    scene, style = Scene.of(explanation), style_of(style)
    values = relative(array(explanation.maps.global_map))
    if title is None:
        title = join_title(explanation.frame_id, explanation.method, 'global map')
    if view not in ('perspective', 'bev'):
        raise UnknownNameError(f"Unknown view {view!r}: expected 'perspective' or 'bev'.")
    if view == 'bev':
        return bev_figure(scene, values, title, None, extent, width, style, 'activation')
    header, height = 0.28, 0.5 * width
    canvas = Canvas(width, header + height, style)
    axes = canvas.axes(0, header, width, height)
    draw_scene(axes, scene, values, fit_extent(scene, extent, 0.4, 1.1), style)
    canvas.text(0.08, header / 2, title, **style.font(1))
    draw_colour_bar(canvas, width - 1.35, header / 2 - 0.045, 1.0, 0.09, 'activation')
    return canvas.figure


def ground_height(scene: Scene) -> float:
    """Returns about where the ground is: below the boxes, or below most points, metres."""
    if len(scene.boxes):
        return float(np.median(scene.boxes[:, 2] - scene.boxes[:, 5] / 2))
    return float(np.percentile(scene.points[:, 2], 10)) if len(scene.points) else 0.0


def scene_camera(extent: np.ndarray, floor: float) -> Camera:
    """Returns a camera that sees an extent at a height from behind (smaller x) and above."""
    x_min, x_max, y_min, y_max = extent
    size = max(x_max - x_min, y_max - y_min)
    target = np.array([(x_min + x_max) / 2, (y_min + y_max) / 2, floor])
    return Camera.look_at(np.array([x_min - 0.35 * size, target[1], floor + 0.42 * size]), target)


def draw_scene(
    axes: Axes, scene: Scene, values: np.ndarray, extent: np.ndarray, style: Style
) -> None:
    """Draws the whole scene in perspective.

    Args:
        axes: Where; their limits are set.
        scene: N points, K boxes.
        values: (N,) map in [0, 1].
        extent: (4,) x_min, x_max, y_min, y_max, metres.
        style: Colours.
    """
    camera = scene_camera(extent, ground_height(scene))
    floor = ground_height(scene)
    ground = np.array([(x, y, floor) for x in extent[:2] for y in extent[2:]])
    seen, _ = camera.project(ground)
    low, high = seen.min(0), seen.max(0)
    aspect = panel_aspect(axes)
    # Upright things at the far end need some room above the ground.
    high[1] += 0.12 * (high[1] - low[1])
    width = min(high[0] - low[0], (high[1] - low[1]) / aspect)
    middle = (low + high) / 2
    if len(scene.boxes):
        # Filling the page crops the ground, but no box may be cut.
        boxes, _ = camera.project(np.concatenate([box_corners(box) for box in scene.boxes]))
        first, last = np.nanmin(boxes, 0), np.nanmax(boxes, 0)
        width = max(width, 1.05 * np.max((last - first) / (1, aspect)))
        half = np.array([1, aspect]) * width / 2 / 1.02
        middle = np.clip(middle, last - half, first + half)
    axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
    axes.set_ylim(middle[1] - width * aspect / 2, middle[1] + width * aspect / 2)
    inside = inside_extent(scene.points, extent)
    positions, depth = camera.project(scene.points[inside])
    typical = np.linalg.norm(camera.eye - ground.mean(0))
    area = np.clip(40_000 / max(inside.sum(), 1), 0.5, 4) * panel_width(axes) / 7
    sizes = area * np.clip(typical / np.maximum(depth, 1e-3), 0.5, 2.5) ** 2
    draw_points(axes, positions, values[inside], sizes, style, depth)
    for box in scene.boxes:
        draw_wireframe(axes, box, camera, style.detection, width=0.7)


def concept_panel(
    explanation: Explanation,
    *,
    limit: int = 16,
    columns: int = 4,
    extent: Sequence[float] | str = 'boxes',
    width: float = 7.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws each concept's map from above, the strongest first, each over its own maximum.

    Args:
        explanation: With R concepts over N points.
        limit: Draw at most so many; the title says how many there are.
        columns: Panels side by side.
        extent: The part that is shown, see ``bev``.
        width: Of the figure, inches.
        title: Above the picture; None: frame, method and count; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        NotApplicableError: If the method has no concepts.
    """
    if explanation.maps.concepts is None or not len(explanation.maps.concepts):
        raise NotApplicableError(
            f'{explanation.method} has no concepts in frame {explanation.frame_id!r}: expected an '
            'explanation by a method that factorises features, such as FFAM.'
        )
    scene, style = Scene.of(explanation), style_of(style)
    concepts = array(explanation.maps.concepts)
    strength = concepts.sum(1)
    share = strength / strength.sum() if strength.sum() > 0 else strength
    order = np.argsort(-share, kind='stable')[:limit]
    limits = fit_extent(scene, extent, 0.4, 0.8)
    rows = -(-len(order) // columns)
    header, label, gap = 0.28, 0.17, 0.06
    cell = (width - gap * (columns - 1)) / columns
    height = cell * (limits[3] - limits[2]) / (limits[1] - limits[0])
    canvas = Canvas(width, header + rows * (label + height + gap), style)
    for place, index in enumerate(order):
        left = place % columns * (cell + gap)
        top = header + place // columns * (label + height + gap)
        caption = f'concept {index}  ({share[index]:.1%})'
        canvas.text(left + 0.04, top + label / 2, caption, **style.font(-1))
        axes = canvas.axes(left, top + label, cell, height)
        draw_bev(axes, scene, relative(concepts[index]), limits, style, plain=True)
    if title is None:
        count = f'{len(order)} of {len(concepts)} concepts by their share of the activation'
        title = join_title(explanation.frame_id, explanation.method, count)
    canvas.text(0.08, header / 2, title, **style.font(1))
    draw_colour_bar(canvas, width - 1.35, header / 2 - 0.045, 1.0, 0.09, 'activation')
    return canvas.figure


def attribute_panel(
    explanation: Explanation,
    detection: int,
    targets: Sequence[str] | None = None,
    *,
    cell: float = 1.2,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws one detection's maps for several targets side by side, as Fig. 4 of FFAM has them.

    The upper row is a perspective view, the lower one the view from above with the object's front
    to the right. Each map is over its own maximum. Where Fig. 4 has averages over many objects of
    a class, this is one object of one frame.

    Args:
        explanation: K detections, N points, T targets.
        detection: Which detection.
        targets: Columns; None: all targets, in the explanation's order.
        cell: Width of a column, inches.
        title: Above the picture; None: frame, method and detection; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there is no such detection.
        UnknownNameError: If there is no such target.
    """
    scene, style = Scene.of(explanation), style_of(style)
    check_detection(explanation, detection)
    names = explanation.targets if targets is None else targets
    names = [target_of(explanation, name) for name in names]
    header, label, gap, bar = 0.3, 0.2, 0.05, 0.42
    heights = (0.8 * cell, 0.6 * cell)
    width = bar + max(len(names) * (cell + gap), 3.0)
    canvas = Canvas(width, header + label + sum(heights) + 2 * gap, style)
    for column, name in enumerate(names):
        left = column * (cell + gap)
        values = saliency_of(explanation, detection, name)
        heading = style.font(ha='center')
        canvas.text(left + cell / 2, header + label / 2, heading_of(name), **heading)
        upper = canvas.axes(left, header + label, cell, heights[0])
        draw_object(upper, scene, detection, values, style, region=0.75, caption=False, truth=False)
        lower = canvas.axes(left, header + label + heights[0] + gap, cell, heights[1])
        _draw_from_above(lower, scene, detection, values, style)
    if title is None:
        title = join_title(explanation.frame_id, explanation.method, scene.captions[detection])
    canvas.text(0.08, header / 2, title, **style.font(1))
    draw_colour_bar(canvas, width - bar + 0.04, header + label + 0.1, 0.07, sum(heights) - 0.2)
    return canvas.figure


def heading_of(target: str) -> str:
    """Returns what a target's column is called: the paper's symbol, and our name for it."""
    return f'{SYMBOLS[target]} ({target})' if target in SYMBOLS else target


def _draw_from_above(
    axes: Axes, scene: Scene, detection: int, values: np.ndarray, style: Style
) -> None:
    """Draws a neighbourhood from above in the box's own frame, its front to the right."""
    box = scene.boxes[detection]
    aspect = panel_aspect(axes)
    half = max(0.68 * diagonal(box), 0.7 * box[4] / aspect, 0.6)
    axes.set_xlim(-half, half)
    axes.set_ylim(-half * aspect, half * aspect)
    near = neighbourhood(scene.points, box, 1.5 * half)
    positions, shown = to_box(scene.points[near], box), values[near]
    sizes = point_area(axes, near.sum()) * (0.7 + 0.8 * shown)
    draw_points(axes, positions[:, :2], shown, sizes, style)
    upright = np.array([[0, 0, 0, *box[3:6], 0]])
    draw_bev_boxes(axes, upright, style.detection, width=0.7)
    axes.text(
        0.02, 0.03, 'from above', transform=axes.transAxes, zorder=Z_TEXT,
        path_effects=style.halo, **style.font(-3, color=style.muted),
    )  # fmt: skip
