"""The parts that pictures are made of: each draws on given axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from .geometry import EDGES, Camera, box_corners, footprint, nice_step, visible_edges
from .style import TURBO, Canvas, Style

#: Annotations; gaps as long as the dashes leave a detection below visible.
DASHES = (0, (3, 3))
#: Said in pictures of maps that are zero everywhere.
NO_SALIENCY = 'the map is zero everywhere'
# Back to front.
Z_GRID, Z_BACK, Z_POINTS, Z_BOX, Z_TRUTH, Z_TEXT = range(1, 7)


def panel_width(axes: Axes) -> float:
    """Returns the width of axes in inches."""
    return axes.get_position().width * axes.figure.get_figwidth()


def panel_aspect(axes: Axes) -> float:
    """Returns height over width of axes on the page."""
    return axes.get_position().height * axes.figure.get_figheight() / panel_width(axes)


def colours(values: np.ndarray, style: Style) -> np.ndarray:
    """Returns (N, 4) colours of values in [0, 1]: turbo from 0.1 on, below fading to "cold"."""
    rgba = TURBO(values)
    warmth = np.minimum(values / 0.1, 1)[:, None]
    if style.cold is not None:
        rgba[:, :3] = warmth * rgba[:, :3] + (1 - warmth) * np.array(to_rgb(style.cold))
    rgba[:, 3:] = style.cold_alpha + (1 - style.cold_alpha) * warmth
    return rgba


def draw_points(
    axes: Axes,
    positions: np.ndarray,
    values: np.ndarray,
    sizes: float | np.ndarray,
    style: Style,
    depth: np.ndarray | None = None,
) -> PathCollection:
    """Draws points in increasing saliency, so that hot points are on top.

    Args:
        axes: Where.
        positions: (N, 2) in the coordinates of ``axes``; NaN is not drawn.
        values: (N,) saliency in [0, 1].
        sizes: Area of a point, or (N,) areas, square points (1/72 inch).
        style: Colours.
        depth: (N,) among points of equal saliency the nearer ones are drawn later.
    """
    keys = (values,) if depth is None else (-depth, values)
    order = np.lexsort(keys)
    sizes = sizes[order] if isinstance(sizes, np.ndarray) else sizes
    return axes.scatter(
        positions[order, 0],
        positions[order, 1],
        s=sizes,
        c=colours(values[order], style),
        marker='o',
        linewidths=0,
        plotnonfinite=False,
        rasterized=True,
        zorder=Z_POINTS,
    )


def draw_bev_boxes(
    axes: Axes,
    boxes: np.ndarray,
    colour: str,
    *,
    dashed: bool = False,
    width: float = 1.0,
    alpha: float = 1.0,
    gid: str = 'detections',
) -> None:
    """Draws (K, 7) boxes from above, each with a tick at the middle of its front."""
    if not len(boxes):
        return
    outlines = [np.concatenate((corners, corners[:1])) for corners in map(footprint, boxes)]
    style = {'colors': colour, 'linewidths': width, 'alpha': alpha}
    zorder = Z_TRUTH if dashed else Z_BOX
    dashes = DASHES if dashed else 'solid'
    lines = LineCollection(outlines, linestyles=[dashes], zorder=zorder, gid=gid, **style)
    axes.add_collection(lines, autolim=False)
    ticks = LineCollection([heading_tick(box)[:, :2] for box in boxes], zorder=zorder, **style)
    ticks.set_gid(f'{gid}-heading')
    axes.add_collection(ticks, autolim=False)


def heading_tick(box: np.ndarray) -> np.ndarray:
    """Returns a (2, 3) line at the bottom from the middle of a box's front forwards."""
    forward = np.array([np.cos(box[6]), np.sin(box[6]), 0.0])
    front = box[:3] + forward * box[3] / 2 - (0, 0, box[5] / 2)
    return np.stack((front, front + forward * np.clip(0.25 * box[3], 0.3, 1.2)))


def draw_wireframe(
    axes: Axes,
    box: np.ndarray,
    camera: Camera,
    colour: str,
    *,
    dashed: bool = False,
    width: float = 1.2,
    gid: str = 'box',
) -> None:
    """Draws a (7,) box in a camera's picture; its hidden edges are thin, pale and at the back."""
    corners, depth = camera.project(box_corners(box))
    if (depth <= 0).any():
        return  # It reaches behind the camera, so it is not what the picture shows.
    seen = visible_edges(box, camera.eye)
    segments = corners[np.array(EDGES)]
    dashes = DASHES if dashed else 'solid'
    front = Z_TRUTH if dashed else Z_BOX
    layers = ((seen, width, 1.0, front, ''), (~seen, 0.7 * width, 0.35, Z_BACK, '-hidden'))
    for mask, linewidth, alpha, zorder, suffix in layers:
        lines = LineCollection(
            segments[mask], colors=colour, linewidths=linewidth, alpha=alpha, linestyles=[dashes],
            zorder=zorder, capstyle='round', gid=gid + suffix,
        )  # fmt: skip
        axes.add_collection(lines, autolim=False)
    tick, _ = camera.project(heading_tick(box))
    axes.plot(
        *tick.T, color=colour, linewidth=width, zorder=front, solid_capstyle='round',
        scalex=False, scaley=False,
    )  # fmt: skip


def draw_ground_grid(
    axes: Axes, camera: Camera, centre: np.ndarray, radius: float, style: Style
) -> float:
    """Draws lines on the ground around ``centre`` (3,), within ``radius``; returns their step."""
    step = nice_step(2 * radius, 6)
    offsets = np.arange(-np.floor(radius / step), np.floor(radius / step) + 1) * step
    lines = []
    for offset in offsets:
        half = np.sqrt(max(radius**2 - offset**2, 0))
        lines += [[(offset, -half, 0), (offset, half, 0)], [(-half, offset, 0), (half, offset, 0)]]
    ends, depth = camera.project(np.array(lines).reshape(-1, 3) + centre)
    keep = (depth > 0).reshape(-1, 2).all(1)
    grid = LineCollection(
        ends.reshape(-1, 2, 2)[keep], colors=style.muted, linewidths=0.4, alpha=0.45, zorder=Z_GRID
    )
    axes.add_collection(grid, autolim=False)
    return step


def draw_rings(axes: Axes, extent: np.ndarray, style: Style) -> list[Text]:
    """Draws circles of equal range around the sensor; returns their labels, in metres."""
    x_min, x_max, y_min, y_max = extent
    corners = [(x, y) for x in (x_max, x_min) for y in (y_min, y_max)]
    corner = np.array(max(corners, key=lambda c: np.hypot(*c)))
    step = max(nice_step(max(x_max - x_min, y_max - y_min), 4), 5.0)
    angle = np.linspace(0, 2 * np.pi, 361)
    labels = []
    for radius in np.arange(step, np.hypot(*corner), step):
        axes.plot(
            radius * np.cos(angle), radius * np.sin(angle), color=style.muted, linewidth=0.4,
            alpha=0.5, zorder=Z_GRID, scalex=False, scaley=False,
        )  # fmt: skip
        label = axes.text(
            *(corner / np.hypot(*corner) * radius), f'{radius:g} m', ha='center', va='center',
            clip_on=True, zorder=Z_TEXT, path_effects=style.halo, gid='range',
            **style.font(-3, color=style.muted),
        )  # fmt: skip
        labels.append(label)
    return labels


def draw_sensor(axes: Axes, style: Style, size: float = 5.0) -> None:
    """Draws the sensor as a triangle that points forwards."""
    axes.plot(
        [0], [0], marker=(3, 0, -90), markersize=size, color=style.text, linestyle='none',
        markeredgewidth=0, zorder=Z_BOX, scalex=False, scaley=False, gid='sensor',
    )  # fmt: skip


def draw_scale_bar(axes: Axes, style: Style) -> float:
    """Draws a bar of round length in the lower left corner of axes in metres; returns it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length = nice_step(right - left, 6)
    x, y = left + 0.02 * (right - left), bottom + 0.035 * (top - bottom)
    axes.plot(
        [x, x + length], [y, y], color=style.text, linewidth=1.6, solid_capstyle='butt',
        path_effects=style.halo, zorder=Z_TEXT, gid='scale-bar', scalex=False, scaley=False,
    )  # fmt: skip
    axes.annotate(
        f'{length:g} m', (x + length / 2, y), (0, 2.5), textcoords='offset points', ha='center',
        va='bottom', path_effects=style.halo, zorder=Z_TEXT, **style.font(-1),
    )  # fmt: skip
    return length


def draw_colour_bar(
    canvas: Canvas,
    left: float,
    top: float,
    width: float,
    height: float,
    meaning: str = 'saliency',
) -> None:
    """Draws the colour scale at inches from the upper left corner.

    It is upright if higher than wide, with ``meaning`` beside it; otherwise that stands before it.
    """
    style, upright = canvas.style, height > width
    axes = canvas.axes(left, top, width, height)
    ramp = colours(np.linspace(0, 1, 256), style)[None]
    axes.imshow(
        ramp.transpose(1, 0, 2) if upright else ramp,
        aspect='auto', origin='lower', extent=(0, 1, 0, 1), interpolation='nearest',
    )  # fmt: skip
    axes.set_gid('colour-bar')
    # A ramp without an outline would not end visibly on a background of its last colour.
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=style.muted, linewidth=0.5))
    font = style.font(-1)
    if upright:
        axes.text(1.5, 0.5, meaning, ha='left', va='center', rotation=90, gid='meaning', **font)
    for position, label in ((0, '0' if upright else f'{meaning}  0'), (1, 'max')):
        if upright:
            axes.text(1.5, position, label, ha='left', va=('bottom', 'top')[position], **font)
        else:
            side = ('right', 'left')[position]
            axes.text(1.03 * position - 0.03 * (1 - position), 0.45, label, ha=side,
                      va='center', **font)  # fmt: skip


def draw_remark(axes: Axes, text: str, style: Style) -> None:
    """Writes a small remark into the lower right corner."""
    axes.text(
        0.98, 0.02, text, transform=axes.transAxes, ha='right', va='bottom', zorder=Z_TEXT,
        path_effects=style.halo, gid='remark', **style.font(-2, color=style.muted),
    )  # fmt: skip


def draw_legend(axes: Axes, style: Style) -> None:
    """Names the two colours of boxes in the upper right corner."""
    renderer, dpi = axes.figure.canvas.get_renderer(), axes.figure.dpi
    width = panel_width(axes)
    top = 1 - 0.1 / (width * panel_aspect(axes))
    right = width - 0.1
    line = {'transform': axes.transAxes, 'zorder': Z_TEXT, 'path_effects': style.halo}
    for label, colour, dashes in (
        ('annotation', style.truth, DASHES),
        ('detection', style.detection, 'solid'),
    ):
        text = axes.text(
            right / width, top, label, ha='right', va='center', **line, **style.font(-1)
        )
        right -= text.get_window_extent(renderer).width / dpi + 0.06
        axes.plot(
            [(right - 0.22) / width, right / width], [top, top], color=colour, linewidth=1.2,
            linestyle=dashes, gid='legend', **line,
        )  # fmt: skip
        right -= 0.22 + 0.12


def draw_captions(
    axes: Axes,
    boxes: np.ndarray,
    texts: Sequence[str],
    order: Sequence[int],
    style: Style,
    others: Sequence[Text] = (),
) -> int:
    """Writes a caption beside each box where there is room; earlier ones in ``order`` go first.

    Args:
        axes: A bird's-eye view whose limits are final.
        boxes: (K, 7) boxes.
        texts: K captions.
        order: Indices of the boxes to caption.
        style: Fonts.
        others: Texts to keep clear of.

    Returns:
        How many found a place.
    """
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    outlines = [Bbox(_bounds(axes.transData.transform(footprint(box)))) for box in boxes]
    taken = [other.get_window_extent(renderer) for other in others]
    for i in order:
        label = axes.text(
            0, 0, texts[i], ha='left', va='bottom', path_effects=style.halo, zorder=Z_TEXT,
            gid='caption', **style.font(-2),
        )  # fmt: skip
        size = label.get_window_extent(renderer)
        obstacles = [*taken, *(other for j, other in enumerate(outlines) if j != i)]
        place = _free_place(outlines[i], size.width, size.height, frame, obstacles)
        if place is None:
            label.remove()
            continue
        label.set_position(axes.transData.inverted().transform((place.x0, place.y0)))
        taken.append(place)
    return len(taken) - len(others)


def _bounds(corners: np.ndarray) -> np.ndarray:
    return np.stack((corners.min(0), corners.max(0)))


def _free_place(
    box: Bbox, width: float, height: float, frame: Bbox, taken: Sequence[Bbox]
) -> Bbox | None:
    """Returns the first free place above, below, right or left of a box, in pixels."""
    gap, middle = 2.0, ((box.x0 + box.x1 - width) / 2, (box.y0 + box.y1 - height) / 2)
    corners = (
        (middle[0], box.y1 + gap),
        (middle[0], box.y0 - gap - height),
        (box.x1 + gap, middle[1]),
        (box.x0 - gap - width, middle[1]),
    )
    for x, y in corners:
        place = Bbox.from_bounds(x, y, width, height)
        inside = frame.x0 <= x and x + width <= frame.x1 and frame.y0 <= y
        if inside and y + height <= frame.y1 and not any(place.overlaps(other) for other in taken):
            return place
    return None
