"""The parts that pictures of decompositions are made of: each draws on given axes.

BEV maps lie with x (right) to the right and z (forward) upwards, metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.patches import Rectangle
from torch import Tensor

from ..core.errors import InputError
from ..lmd.components import BIAS, Components
from ..lmd.frame import BevArea, FrameDecomposition
from .draw import Z_BOX, Z_GRID, Z_POINTS, Z_TEXT, Z_TRUTH, draw_rings, draw_scale_bar
from .scene import array
from .style import Canvas, Style

#: Part of the values of a signed map that is within the colour scale.
SIGNED_SHARE = 0.999

_KNOWN = {'camera': '#3b7dd8', 'radar': '#e8871e', 'lidar': '#2a9d6f', BIAS: '#a3a8b0'}
_OTHERS = ('#3b7dd8', '#e8871e', '#2a9d6f', '#8e5bb5', '#c8483f', '#17a2b5', '#b58a2a', '#5d6d7e')

#: Rows of a page of cameras, as seen from above.
_CAMERA_ROWS = (
    ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT'),
    ('CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT'),
)


def component_colours(names: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each component; sensors of known names have their own."""
    known = {name: _KNOWN[name] for name in names if name in _KNOWN}
    free = [colour for colour in _OTHERS if colour not in known.values()]
    others = [name for name in dict.fromkeys(names) if name not in known]
    return known | {name: free[i % len(free)] for i, name in enumerate(others)}


@dataclass(frozen=True)
class Scale:
    """Which colours stand for which values.

    Attributes:
        colormap: Colours.
        low: Value of the first colour; what is below has it too.
        high: Value of the last colour.
        labels: Texts at both ends of the colour bar.
        meaning: What is shown.
    """

    colormap: Colormap
    low: float
    high: float
    labels: tuple[str, str]
    meaning: str


def _colormap(name: str, colours: Sequence[str]) -> Colormap:
    return LinearSegmentedColormap.from_list(name, colours, N=512)


def _is_dark(style: Style) -> bool:
    return style.background != 'white'


def sigmoid_scale(style: Style) -> Scale:
    """Scale of Fig. 3 of LMD: only what is positive shows, because sigmoid(0) is 1/2."""
    ramp = colormaps['inferno'](np.linspace(0.05, 0.95, 9))
    light = _colormap('evidence', ['#f7f7f5', '#fdd89b', '#f4923f', '#c93d2e', '#6b1030'])
    colormap = _colormap('evidence_dark', ['#15171c', *ramp[2:]]) if _is_dark(style) else light
    return Scale(colormap, 0.5, 1.0, ('≤ 0.5', '1'), 'sigmoid')


def signed_scale(maps: np.ndarray, style: Style) -> Scale:
    """Scale of Fig. 4 of LMD, symmetric about zero, shared by all of ``maps`` (any shape)."""
    values = np.abs(maps[np.isfinite(maps)])
    limit = float(np.quantile(values, SIGNED_SHARE)) if values.size else 0.0
    limit = limit or float(values.max(initial=0.0)) or 1.0
    middle = '#15171c' if _is_dark(style) else '#f7f7f5'
    colours = ['#08306b', '#2f7fbf', '#a6cbe6', middle, '#f6b79b', '#d1402f', '#67000d']
    if _is_dark(style):
        colours = ['#b8e0ff', '#4aa3e8', '#1d4f86', middle, '#8c2f1f', '#f06a3f', '#ffd9b8']
    text = f'{limit:.2g}'
    return Scale(_colormap('signed', colours), -limit, limit, (f'−{text}', f'+{text}'), 'logit')


def relative_scale(style: Style, meaning: str) -> Scale:
    """Scale of maps that are zero or positive, each over its own maximum."""
    base = sigmoid_scale(style).colormap
    return Scale(base, 0.0, 1.0, ('0', 'max'), meaning)


def bev_of(components: Components, what: str, channel: int = 0) -> np.ndarray:
    """Returns (M + 1, Z, X), one channel of the parts of an output.

    Raises:
        InputError: If the output is no map, or has no such channel.
    """
    parts = components.parts
    if parts.dim() != 4 or not 0 <= channel < parts.shape[1]:
        raise InputError(
            f'The output {what!r} has parts of shape {tuple(parts.shape)}: expected a BEV map '
            f'(components, channels, Z, X) with a channel {channel}.'
        )
    return array(parts[:, channel])


def area_of(frame: FrameDecomposition, shape: Sequence[int]) -> BevArea:
    """Returns what the frame's maps cover; cells of the map where that is not known."""
    if frame.area is not None:
        return frame.area
    rows, columns = shape[-2:]
    return BevArea((-columns / 2, columns / 2), (-rows / 2, rows / 2))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def draw_map(axes: Axes, values: np.ndarray, area: BevArea, scale: Scale, gid: str) -> None:
    """Draws a BEV map (Z, X) and sets the limits of ``axes``."""
    axes.imshow(
        values, cmap=scale.colormap, vmin=scale.low, vmax=scale.high, origin='lower',
        extent=(*area.x, *area.z), interpolation='nearest', zorder=Z_GRID, gid=gid, aspect='equal',
    )  # fmt: skip
    axes.autoscale(False)


def draw_frame(axes: Axes, style: Style) -> None:
    """Outlines a panel."""
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, edgecolor=style.muted,
                  linewidth=0.6, zorder=Z_TEXT, clip_on=False)
    )  # fmt: skip


def draw_outline(
    axes: Axes, mask: Tensor | None, area: BevArea, colour: str, width: float, dashes: str = '-'
) -> None:
    """Draws the outline of the true cells of a mask (Z, X) along the cells' edges."""
    if mask is None:
        return
    inside = np.pad(array(mask) > 0, 1)
    rows, columns = inside.shape[0] - 2, inside.shape[1] - 2
    xs, zs = np.linspace(*area.x, columns + 1), np.linspace(*area.z, rows + 1)
    # Between rows r and r + 1 of the padded mask lies the edge zs[r]; likewise for columns.
    r, c = np.nonzero(inside[1:, 1:-1] != inside[:-1, 1:-1])
    across = np.stack((np.stack((xs[c], zs[r]), 1), np.stack((xs[c + 1], zs[r]), 1)), 1)
    r, c = np.nonzero(inside[1:-1, 1:] != inside[1:-1, :-1])
    along = np.stack((np.stack((xs[c], zs[r]), 1), np.stack((xs[c], zs[r + 1]), 1)), 1)
    lines = LineCollection(
        np.concatenate((across, along)), colors=colour, linewidths=width, linestyles=dashes,
        capstyle='round', zorder=Z_TRUTH, gid='truth',
    )  # fmt: skip
    axes.add_collection(lines, autolim=False)


def draw_ego(axes: Axes, style: Style, size: float = 4.0) -> None:
    """Draws the vehicle at the origin as a triangle that points forwards (upwards)."""
    axes.plot(
        [0], [0], marker=(3, 0, 0), markersize=size, color=style.text, linestyle='none',
        markeredgecolor=style.background, markeredgewidth=0.4, zorder=Z_BOX,
        scalex=False, scaley=False, gid='ego',
    )  # fmt: skip


def draw_sensor_points(
    axes: Axes,
    points: Mapping[str, Tensor],
    style: Style,
    colours: Mapping[str, str],
    area: float = 1.0,
) -> None:
    """Draws each sensor's points (P, >= 3) from above: x against z; many points are small.

    Args:
        axes: Where; their limits are set.
        points: By sensor.
        style: Its text colour is that of sensors without one.
        colours: By sensor.
        area: Of a point, relative to the usual.
    """
    for name in sorted(points, key=lambda n: -len(points[n])):
        xyz = array(points[name])
        size = area * float(np.clip(5_000 / max(len(xyz), 1), 0.15, 7.0))
        axes.scatter(
            xyz[:, 0], xyz[:, 2], s=size, c=colours.get(name, style.text), linewidths=0,
            alpha=0.35 if len(xyz) > 5_000 else 0.85, rasterized=True, zorder=Z_POINTS,
            gid=f'points-{name}', label=f'{name} ({len(xyz)} points)',
        )  # fmt: skip


def draw_overview(
    axes: Axes, frame: FrameDecomposition, area: BevArea, style: Style, colours: Mapping[str, str]
) -> None:
    """Draws the sensors' points, the vehicle, range rings and the annotation from above."""
    axes.set_xlim(area.x)
    axes.set_ylim(area.z)
    axes.autoscale(False)
    axes.set_aspect('equal', adjustable='box')
    draw_rings(axes, np.array([*area.x, *area.z]), style)
    draw_sensor_points(axes, frame.points, style, colours)
    draw_truth(axes, frame, area, style, 1.0)
    draw_ego(axes, style, 6.0)
    draw_scale_bar(axes, style)
    draw_frame(axes, style)


def draw_truth(
    axes: Axes, frame: FrameDecomposition, area: BevArea, style: Style, width: float
) -> None:
    """Draws the outline of annotated objects; those that do not count are dotted and pale."""
    draw_outline(axes, frame.ground_truth, area, style.truth, width)
    if frame.ground_truth_valid is not None:
        draw_outline(axes, ~frame.ground_truth_valid, area, style.muted, 0.7 * width, ':')


def draw_cameras(
    canvas: Canvas, images: Mapping[str, np.ndarray], left: float, top: float, width: float
) -> float:
    """Draws pictures (H, W, 3) side by side, a vehicle's six as they lie around it.

    Returns:
        The height taken, inches.
    """
    rows = [[n for n in row if n in images] for row in _CAMERA_ROWS]
    placed = {n for row in rows for n in row}
    rest = [n for n in images if n not in placed]
    rows += [rest[i : i + 3] for i in range(0, len(rest), 3)]
    y, gap = top, 0.05
    for row in filter(None, rows):
        columns = max(len(row), min(3, len(images)))
        cell = (width - gap * (columns - 1)) / columns
        height = max(cell * images[n].shape[0] / images[n].shape[1] for n in row)
        for i, name in enumerate(row):
            axes = canvas.axes(left + i * (cell + gap), y, cell, height)
            axes.imshow(images[name], aspect='auto', interpolation='antialiased')
            axes.set_gid(f'image-{name}')
            label = name.removeprefix('CAM_').replace('_', ' ').lower()
            axes.text(0.02, 0.95, label, transform=axes.transAxes, va='top',
                      path_effects=canvas.style.halo, **canvas.style.font(-1.5))  # fmt: skip
        y += height + gap
    return y - gap - top


def draw_scale(canvas: Canvas, scale: Scale, left: float, top: float, width: float) -> None:
    """Draws a lying colour bar at inches from the upper left corner, its labels beside it."""
    axes = canvas.axes(left, top, width, 0.09)
    axes.imshow(
        np.linspace(0, 1, 256)[None], cmap=scale.colormap, aspect='auto', extent=(0, 1, 0, 1)
    )
    axes.set_gid('colour-bar')
    draw_frame(axes, canvas.style)
    font = canvas.style.font(-1.5, color=canvas.style.text)
    canvas.text(left - 0.06, top + 0.045, f'{scale.meaning}  {scale.labels[0]}', ha='right', **font)
    canvas.text(left + width + 0.06, top + 0.045, scale.labels[1], ha='left', **font)


def draw_note(axes: Axes, text: str, style: Style) -> None:
    """Writes a small note into the lower left corner of a map."""
    axes.text(
        0.02, 0.02, text, transform=axes.transAxes, va='bottom', zorder=Z_TEXT, gid='note',
        path_effects=style.halo, **style.font(-1.5),
    )  # fmt: skip
