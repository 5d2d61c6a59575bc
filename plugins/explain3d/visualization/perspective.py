"""Perspective views of one object's neighbourhood, by a pinhole projection of our own."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..core.structures import Explanation
from .bev import describe
from .draw import (
    NO_SALIENCY,
    Z_TEXT,
    draw_colour_bar,
    draw_ground_grid,
    draw_points,
    draw_remark,
    draw_wireframe,
    panel_aspect,
    panel_width,
)
from .geometry import Camera, box_corners, diagonal, to_box
from .scene import Scene, check_detection, saliency_of
from .style import Canvas, Style, style_of

#: Radius of the neighbourhood that is shown, in bird's-eye-view diagonals of the box.
REGION = 1.0
#: Height of the caption above an object and of the note below it, inches.
TITLE, NOTE = 0.19, 0.14
AZIMUTH, ELEVATION = np.deg2rad(50), np.deg2rad(24)


def object_view(
    explanation: Explanation,
    detection: int,
    target: str | None = None,
    *,
    region: float = REGION,
    width: float = 3.4,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws one detection and what is around it, from the side on which the sensor is.

    Args:
        explanation: K detections, N points.
        detection: Which one.
        target: Which target's map; None: the first. Colours are relative to the largest value
            of the map over the *frame*, which may lie outside the picture.
        region: Radius of the shown neighbourhood in bird's-eye-view diagonals of the box.
        width: Of the figure, inches.
        title: Above the picture; None: frame, method, target and detection; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there is no such detection.
        UnknownNameError: If there is no such target.
    """
    scene, style = Scene.of(explanation), style_of(style)
    check_detection(explanation, detection)
    values = saliency_of(explanation, detection, target)
    header, bar = 0.28, 0.42
    height = 0.75 * (width - bar)
    canvas = Canvas(width, header + height, style)
    axes = canvas.axes(0, header, width - bar, height)
    draw_object(axes, scene, detection, values, style, region=region)
    title = describe(explanation, detection, target) if title is None else title
    canvas.text(0.06, header / 2, title, **style.font(-1))
    draw_colour_bar(canvas, width - bar + 0.04, header + height / 4, 0.07, height / 2)
    return canvas.figure


def object_camera(box: np.ndarray, radius: float) -> Camera:
    """Returns the camera that looks at a box from above, over the corner nearest to the sensor.

    Looking from the sensor's side shows the surfaces that it saw. Going by the box's own axes,
    and not by the exact direction, makes pictures of different objects comparable.

    Args:
        box: (7,) the object.
        radius: Of the neighbourhood, metres; the camera is 4 radii away.
    """
    sensor = to_box(np.zeros(3), box)
    # The quadrant of the box's own plane in which the sensor is.
    azimuth = np.arctan2(
        np.sin(AZIMUTH) * (1 if sensor[1] >= 0 else -1),
        np.cos(AZIMUTH) * (1 if sensor[0] >= 0 else -1),
    )
    azimuth += box[6]
    away = np.array(
        [
            np.cos(azimuth) * np.cos(ELEVATION),
            np.sin(azimuth) * np.cos(ELEVATION),
            np.sin(ELEVATION),
        ]
    )
    return Camera.look_at(box[:3] + 4 * radius * away, box[:3])


def neighbourhood(points: np.ndarray, box: np.ndarray, radius: float) -> np.ndarray:
    """Tells which points (N, 3) stand around a box, without what hangs high above it, (N,) bool."""
    distance = np.hypot(points[:, 0] - box[0], points[:, 1] - box[1])
    height = points[:, 2] - box[2]
    slack = max(0.2 * box[5], 0.4)
    return (distance <= radius) & (np.abs(height) <= box[5] / 2 + slack)


def draw_object(
    axes: Axes,
    scene: Scene,
    detection: int,
    values: np.ndarray,
    style: Style,
    *,
    region: float = REGION,
    caption: bool = True,
    truth: bool = True,
) -> None:
    """Draws one detection's neighbourhood in perspective.

    Args:
        axes: Where; their limits are set.
        scene: N points, K boxes.
        detection: Which box.
        values: (N,) saliency in [0, 1].
        style: Colours and fonts.
        region: Radius in bird's-eye-view diagonals of the box.
        caption: Write class, score, distance and the step of the ground's grid.
        truth: Draw the annotated boxes.
    """
    box = scene.boxes[detection]
    radius = max(region * diagonal(box), 1.5)
    camera = object_camera(box, radius)
    near = neighbourhood(scene.points, box, radius)
    matched = _close(scene.truth, box, diagonal(box) / 2) if truth else scene.truth[:0]
    corners = np.concatenate([box_corners(shown) for shown in (box, *matched)])
    margins = (TITLE, NOTE) if caption else (0.0, 0.0)
    _fit(axes, camera, box, radius, np.concatenate((scene.points[near], corners)), *margins)
    ground = box[:3] - (0, 0, box[5] / 2)
    step = draw_ground_grid(axes, camera, ground, radius, style)
    _draw_near_points(axes, scene.points[near], values[near], camera, 4 * radius, style)
    line = np.clip(panel_width(axes) / 2.5, 0.6, 1.2)
    for other in _close(np.delete(scene.boxes, detection, 0), box, radius):
        draw_wireframe(axes, other, camera, style.detection, width=0.4 * line, gid='neighbour')
    for other in _close(scene.truth, box, radius) if truth else ():
        draw_wireframe(axes, other, camera, style.truth, dashed=True, width=0.7 * line, gid='truth')
    draw_wireframe(axes, box, camera, style.detection, width=line)
    if caption:
        _write_caption(axes, scene, detection, int(near.sum()), step, style)
        if not values.any():
            draw_remark(axes, NO_SALIENCY, style)


def _close(boxes: np.ndarray, box: np.ndarray, radius: float) -> np.ndarray:
    """Returns those of (K, 7) boxes whose centre is within ``radius`` of that of ``box``."""
    return boxes[np.hypot(boxes[:, 0] - box[0], boxes[:, 1] - box[1]) <= radius]


def point_area(axes: Axes, count: int) -> float:
    """Returns how large to draw ``count`` points around an object, square points (1/72 inch)."""
    return float(np.clip(12_000 / max(count, 1), 2.5, 14) * (panel_width(axes) / 3.4) ** 1.3)


def _draw_near_points(
    axes: Axes,
    points: np.ndarray,
    values: np.ndarray,
    camera: Camera,
    distance: float,
    style: Style,
) -> None:
    """Draws points whose size falls with depth; fewer points are drawn larger."""
    positions, depth = camera.project(points)
    area = point_area(axes, len(points))
    sizes = area * (distance / np.maximum(depth, 0.2 * distance)) ** 2 * (0.7 + 0.8 * values)
    draw_points(axes, positions, values, sizes, style, depth)


def _fit(
    axes: Axes,
    camera: Camera,
    box: np.ndarray,
    radius: float,
    points: np.ndarray,
    top: float = 0.0,
    bottom: float = 0.0,
) -> None:
    """Sets limits that hold the neighbourhood's ground and ``points``, without distortion.

    ``top`` and ``bottom`` are strips of the panel that are kept free, inches.
    """
    angle = np.linspace(0, 2 * np.pi, 73)
    ring = np.stack((np.cos(angle), np.sin(angle), np.zeros_like(angle)), 1) * radius
    ring += box[:3] - (0, 0, box[5] / 2)
    seen, _ = camera.project(np.concatenate((ring, points)))
    low, high = np.nanmin(seen, 0), np.nanmax(seen, 0)
    middle, size = (low + high) / 2, (high - low) * 1.03
    aspect, inches = panel_aspect(axes), panel_width(axes)
    width = max(size[0], size[1] / (aspect - (top + bottom) / inches))
    middle[1] += (top - bottom) / 2 / inches * width
    axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
    axes.set_ylim(middle[1] - width * aspect / 2, middle[1] + width * aspect / 2)


def _write_caption(
    axes: Axes, scene: Scene, detection: int, count: int, step: float, style: Style
) -> None:
    box = scene.boxes[detection]
    options = {
        'transform': axes.transAxes,
        'path_effects': style.halo,
        'zorder': Z_TEXT,
        'clip_on': False,
    }
    name = scene.captions[detection]
    axes.text(0.02, 0.98, name, va='top', gid='caption', **options, **style.font(0, weight='bold'))
    note = f'{np.hypot(*box[:2]):.0f} m away, {count} points, grid {step:g} m'
    axes.text(0.02, 0.02, note, va='bottom', **options, **style.font(-2, color=style.muted))
