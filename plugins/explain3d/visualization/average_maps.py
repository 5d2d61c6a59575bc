"""Average saliency maps in three views (Figs. 4, 6 and 7 of FFAM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..core.errors import InputError, UnknownNameError
from ..metrics.average_maps import AverageMap
from .draw import Z_BOX, Z_POINTS, colours, draw_colour_bar, draw_remark
from .panels import heading_of
from .style import Canvas, Style, style_of

#: Each view: which axis of the box it looks along, and which go to the right and up. The object's
#: front is on the right seen from above and from its right side; seen from its front, its left is.
VIEWS: Mapping[str, tuple[int, int, int]] = {
    'top': (2, 0, 1),
    'side': (1, 0, 2),
    'front': (0, 1, 2),
}
HEADER, LABEL, GAP, BAR, FOOTER = 0.34, 0.24, 0.06, 0.42, 0.2
REMARK = 'Each map is over its own maximum; cells with points of a single detection are pale.'
#: Width of the widest view in a panel, inches.
CELL = 1.25
#: Opacity of cells that only one detection has points in, over that of others.
PALE = 0.4


def average_panel(
    average: AverageMap,
    targets: Sequence[str] | None = None,
    *,
    cell: float = CELL,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws the average maps of a class: a column for each target, a row for each view (Fig. 4).

    A view shows the mean of all that fell into a column of cells; a column that only one detection
    has points in is pale. Each target's map is over the largest value of its three views, single
    detections left out where there are others. The box has the mean size of the class.

    Args:
        average: The maps.
        targets: Columns; None: all.
        cell: Width of a column, inches.
        title: Above the picture; None: class and count.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        UnknownNameError: If there is no such target.
    """
    style, names = style_of(style), _targets(average, targets)
    sizes = _view_sizes(average, cell)
    rows = [size[1] for size in sizes]
    width = LABEL + max(len(names) * (cell + GAP), 3.0) + BAR
    canvas = Canvas(width, HEADER + LABEL + sum(rows) + len(rows) * GAP + FOOTER, style)
    for column, name in enumerate(names):
        left = LABEL + column * (cell + GAP)
        heading = style.font(ha='center')
        canvas.text(left + cell / 2, HEADER + LABEL / 2, heading_of(name), **heading)
        (views, firm, _), top = _views(average, name), HEADER + LABEL
        for view, values, sure, size in zip(VIEWS, views, firm, sizes, strict=True):
            axes = canvas.axes(left + (cell - size[0]) / 2, top, *size)
            draw_average(axes, average, view, values, sure, style)
            if column == 0:
                font = style.font(-1, rotation=90, ha='center', color=style.muted)
                canvas.text(LABEL / 2, top + size[1] / 2, view, **font)
            top += size[1] + GAP
    canvas.text(0.08, HEADER / 2, _title(average) if title is None else title, **style.font(1))
    _legend(canvas, HEADER + LABEL, sum(rows))
    return canvas.figure


def average_rows(
    rows: Mapping[str, Mapping[str, AverageMap]],
    target: str | None = None,
    *,
    cell: float = CELL,
    title: str = '',
    style: str | Style = 'white',
) -> Figure:
    """Draws classes side by side, a row for each set or detector (Figs. 6 and 7).

    Args:
        rows: For each row's name, the average map of each class.
        target: Which target's maps; None: the first.
        cell: Width of a view of the longest side, inches.
        title: Above the picture.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there are no rows or classes.
        UnknownNameError: If there is no such target.
    """
    style = style_of(style)
    categories = sorted({category for row in rows.values() for category in row})
    if not categories:
        raise InputError('Expected average maps of at least one class, received none to draw.')
    examples = {c: next(row[c] for row in rows.values() if c in row) for c in categories}
    # All rows of a class in one scale; where a row has no detections, another gives the shape.
    sizes = {c: _view_sizes(_with_size(rows, c), cell) for c in categories}
    height = max(size[1] for views in sizes.values() for size in views)
    widths = [sum(size[0] + GAP for size in sizes[c]) + 0.12 for c in categories]
    canvas = Canvas(
        LABEL + max(sum(widths), 4.0) + BAR,
        HEADER + LABEL + len(rows) * (height + LABEL + GAP) + FOOTER,
        style,
    )
    for number, (name, row) in enumerate(rows.items()):
        top = HEADER + LABEL + number * (height + LABEL + GAP)
        canvas.text(LABEL / 2, top + height / 2, name, **style.font(rotation=90, ha='center'))
        left = LABEL
        for category, width in zip(categories, widths, strict=True):
            if number == 0:
                canvas.text(left + width / 2, HEADER + LABEL / 2, category,
                            **style.font(1, ha='center', weight='bold'))  # fmt: skip
            average = row.get(category)
            _draw_cell(canvas, average, target, sizes[category], left, top, height, style)
            note = _note(average, target or examples[category].targets[0])
            canvas.text(left + width / 2, top + height + LABEL / 2, note,
                        **style.font(-1, ha='center', color=style.muted))  # fmt: skip
            left += width
    canvas.text(0.08, HEADER / 2, title, **style.font(1))
    _legend(canvas, HEADER + LABEL, height)
    return canvas.figure


def draw_average(
    axes: Axes,
    average: AverageMap,
    view: str,
    values: np.ndarray,
    sure: np.ndarray,
    style: Style,
) -> None:
    """Draws one view of an average map in metres, with the outline of the box.

    Args:
        axes: Where; their limits are set.
        average: Whose map.
        view: One of ``VIEWS``.
        values: (cells to the right, cells up) in [0, 1]; NaN is left empty.
        sure: As large, bool; other cells are pale.
        style: Colours.
    """
    _, right, up = VIEWS[view]
    size, reach = average.size.tolist(), average.grid.reach
    x, y = (size[i] * reach[i] / 2 for i in (right, up))
    axes.set_xlim(-x, x)
    axes.set_ylim(-y, y)
    axes.set_gid(view)
    image = colours(np.nan_to_num(values).ravel(), style).reshape(*values.shape, 4)
    image[~sure, 3] *= PALE
    image[np.isnan(values)] = 0
    axes.imshow(image.transpose(1, 0, 2), origin='lower', extent=(-x, x, -y, y), aspect='auto',
                interpolation='nearest', zorder=Z_POINTS)  # fmt: skip
    half_x, half_y = size[right] / 2, size[up] / 2
    axes.add_patch(Rectangle((-half_x, -half_y), 2 * half_x, 2 * half_y, fill=False, gid='box',
                             edgecolor=style.detection, linewidth=1.0, zorder=Z_BOX))  # fmt: skip
    if right == 0:  # A tick at the front.
        axes.plot([half_x, half_x + 0.16 * size[0]], [0, 0], color=style.detection, linewidth=1.0,
                  zorder=Z_BOX, scalex=False, scaley=False)  # fmt: skip


def _targets(average: AverageMap, targets: Sequence[str] | None) -> tuple[str, ...]:
    names = average.targets if targets is None else tuple(targets)
    unknown = [name for name in names if name not in average.targets]
    if unknown:
        raise UnknownNameError(
            f'Unknown targets {unknown}: expected some of {list(average.targets)}.'
        )
    return names


def _views(average: AverageMap, target: str) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Returns a map's views in [0, 1], where several detections made them, and the value of 1."""
    views = [average.seen_along(target, axis).numpy() for axis, _, _ in VIEWS.values()]
    firm = [average.columns[axis].numpy() > 1 for axis, _, _ in VIEWS.values()]
    values = np.concatenate([np.nan_to_num(view).ravel() for view in views])
    sound = np.concatenate([mask.ravel() for mask in firm])
    top = values[sound].max(initial=0) or values.max(initial=0)
    return [np.minimum(view / (top or 1), 1) for view in views], firm, float(top)


def _view_sizes(average: AverageMap, cell: float) -> list[tuple[float, float]]:
    """Inches of the three views; all in one scale, in which the widest view fills the cell."""
    size = average.size.tolist() if average.count else [1.0, 1.0, 1.0]
    metres = [s * r for s, r in zip(size, average.grid.reach, strict=True)]
    scale = min(cell / max(metres[:2]), 1.3 * cell / metres[2])
    return [(metres[right] * scale, metres[up] * scale) for _, right, up in VIEWS.values()]


def _with_size(rows: Mapping[str, Mapping[str, AverageMap]], category: str) -> AverageMap:
    found = [row[category] for row in rows.values() if category in row]
    return next((average for average in found if average.count), found[0])


def _draw_cell(
    canvas: Canvas,
    average: AverageMap | None,
    target: str | None,
    sizes: Sequence[tuple[float, float]],
    left: float,
    top: float,
    height: float,
    style: Style,
) -> None:
    """Draws the three views of one class in one row."""
    drawn = None
    if average is not None and average.count:
        drawn = _views(average, _targets(average, None if target is None else [target])[0])
    for i, (view, size) in enumerate(zip(VIEWS, sizes, strict=True)):
        axes = canvas.axes(left, top + (height - size[1]) / 2, *size)
        left += size[0] + GAP
        if drawn is None:
            draw_remark(axes, 'none', style)
        else:
            draw_average(axes, average, view, drawn[0][i], drawn[1][i], style)


def _note(average: AverageMap | None, target: str) -> str:
    if average is None or not average.count:
        return 'no detections'
    return f'n = {average.count}, max {_views(average, target)[2]:.2f}'


def _title(average: AverageMap) -> str:
    return f'{average.category}, mean of {average.count} detections'


def _legend(canvas: Canvas, top: float, height: float) -> None:
    """Draws the colour bar and the remark on how to read the picture."""
    height = min(max(height - 0.2, 0.3), 1.6)
    draw_colour_bar(canvas, canvas.width - BAR + 0.06, top + 0.1, 0.07, height)
    remark = canvas.style.font(-1, color=canvas.style.muted)
    canvas.text(0.08, canvas.height - FOOTER / 2, REMARK, **remark)
