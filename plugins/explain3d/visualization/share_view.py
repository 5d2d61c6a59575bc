"""A frame from above: each box in the colours of the sensors that made it."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from ..lmd.components import BIAS
from ..lmd.detections import SensorShares
from .bev import MAX_CAPTIONS
from .draw import (
    draw_bev_boxes,
    draw_captions,
    draw_points,
    draw_rings,
    draw_scale_bar,
    draw_sensor,
)
from .geometry import inside_extent, page_extent
from .lmd_panels import component_colours
from .scene import array
from .style import Canvas, Style, join_title, style_of

_HEADER = 0.5


def share_view(
    frame: SensorShares,
    points: Tensor | None = None,
    width: float = 7.0,
    style: str | Style = 'white',
) -> Figure:
    """Draws boxes mixed of the sensors' colours by their shares of the logit, the bias left out.

    A box that is lost without some sensor is drawn thick, and its caption names the sensors.

    Args:
        frame: K detections and their shares.
        points: (P, >= 3) points to be shown, LiDAR frame, metres; None: those of the frame.
        width: Of the figure, inches.
        style: ``'white'``, ``'dark'`` or a ``Style``.
    """
    style, boxes = style_of(style), array(frame.detections.boxes)
    points = frame.points if points is None else points
    cloud = np.zeros((0, 3)) if points is None else array(points)[:, :3]
    extent = page_extent(boxes, cloud, 0.4, 1.1)
    height = width * (extent[3] - extent[2]) / (extent[1] - extent[0])
    canvas = Canvas(width, _HEADER + height, style)
    axes = canvas.axes(0, _HEADER, width, height)
    axes.set_xlim(extent[0], extent[1])
    axes.set_ylim(extent[2], extent[3])
    axes.set_aspect('equal', adjustable='box')
    cloud = cloud[inside_extent(cloud, extent)]
    draw_points(axes, cloud[:, :2], np.zeros(len(cloud)), 0.6, style)
    draw_sensor(axes, style)
    lost = _lost(frame)
    for box, colour, without in zip(boxes, box_colours(frame), lost, strict=True):
        draw_bev_boxes(axes, box[None], colour, width=2.2 if without else 1.0)
    ranges = draw_rings(axes, extent, style)
    draw_scale_bar(axes, style)
    order = frame.detections.scores.argsort(descending=True).tolist()[:MAX_CAPTIONS]
    draw_captions(axes, boxes, _captions(frame, lost), order, style, ranges)
    count = f'{len(boxes)} detection{"" if len(boxes) == 1 else "s"}'
    canvas.text(0.08, 0.14, join_title(frame.frame_id, 'which sensor made them', count),
                **style.font(1))  # fmt: skip
    left = 0.08
    for name, colour in component_colours(frame.names).items():
        if name != BIAS:
            canvas.text(left, 0.36, name, **style.font(0, color=colour, weight='bold'))
            left += 0.1 + 0.08 * len(name)
    return canvas.figure


def box_colours(frame: SensorShares) -> np.ndarray:
    """Returns (K, 3) colours: the sensors' own, mixed by their shares; grey where there is none."""
    sensors = [name for name in frame.names if name != BIAS]
    colours = component_colours(frame.names)
    palette = np.array([to_rgb(colours[name]) for name in sensors])
    shares = _sensor_shares(frame)
    mixed = np.nan_to_num(shares) @ palette
    return np.where(np.isnan(shares).any(1, keepdims=True), 0.5, mixed)


def _sensor_shares(frame: SensorShares) -> np.ndarray:
    """(K, M) shares of the sensors among themselves, NaN where none has a part."""
    shares = array(frame.parts.shares())[:, : len(frame.names) - 1].astype(np.float64)
    total = shares.sum(1, keepdims=True)
    return np.divide(shares, total, out=np.full_like(shares, np.nan), where=total > 0)


def _lost(frame: SensorShares) -> list[list[str]]:
    """For each detection the sensors without which it is lost."""
    found = {sensor: effect.found.tolist() for sensor, effect in frame.effects.items()}
    return [
        [sensor for sensor, kept in found.items() if not kept[k]]
        for k in range(len(frame.detections))
    ]


def _captions(frame: SensorShares, lost: list[list[str]]) -> list[str]:
    shares, texts = _sensor_shares(frame), []
    for name, row, without in zip(frame.detections.names(), shares, lost, strict=True):
        best = int(np.nan_to_num(row).argmax())
        share = '' if np.isnan(row).any() else f' {100 * row[best]:.0f} % {frame.names[best]}'
        texts.append(f'{name}{share}' + (f', lost without {", ".join(without)}' if without else ''))
    return texts
