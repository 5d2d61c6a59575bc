"""Pictures of a frame's modality decomposition: maps from above (Fig. 3 and 4 of LMD).

Every function takes a ``lmd.frame.FrameDecomposition`` and returns a matplotlib ``Figure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from ..core.errors import UnknownNameError
from ..lmd.components import BIAS
from ..lmd.frame import BevArea, FrameDecomposition
from ..lmd.shares import mean_parts
from .lmd_panels import (
    Scale,
    area_of,
    bev_of,
    component_colours,
    draw_cameras,
    draw_ego,
    draw_frame,
    draw_map,
    draw_note,
    draw_overview,
    draw_scale,
    draw_truth,
    sigmoid,
    sigmoid_scale,
    signed_scale,
)
from .scene import array
from .style import Canvas, Style, join_title, style_of

MARGIN, HEADER, LABEL, GAP, BAND = 0.1, 0.36, 0.2, 0.08, 0.3
MODES = {'sigmoid': 'through the sigmoid', 'signed': 'signed'}


@dataclass(frozen=True)
class Panel:
    """One map of a page.

    Attributes:
        title: Above it.
        values: (Z, X) logits.
        note: In its corner.
    """

    title: str
    values: np.ndarray
    note: str = ''


def decomposition_maps(
    frame: FrameDecomposition,
    mode: str = 'signed',
    output: str | None = None,
    *,
    channel: int = 0,
    columns: int = 5,
    width: float = 10.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws prediction, every modality, the bias and other models' predictions from above.

    Args:
        frame: The decomposition.
        mode: 'sigmoid', Fig. 3 of LMD: sigmoid of each component, of which only what is above
            sigmoid(0) = 1/2 shows; or 'signed', Fig. 4: logits, what speaks for an object in red,
            what speaks against it in blue, one scale for all.
        output: Which output; None: the first.
        channel: Which channel of it.
        columns: At most so many maps side by side.
        width: Of the figure, inches.
        title: Above the picture; None: frame, output and mode; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        UnknownNameError: If there is no such mode or output.
        InputError: If the output is no map.
    """
    _check_mode(mode)
    style = style_of(style)
    panels, area = panels_of(frame, output, channel)
    columns = min(columns, len(panels))
    height = band_height(len(panels), columns, width, area)
    canvas = Canvas(width, HEADER + height, style)
    title = _title(frame, output, MODES[mode]) if title is None else title
    canvas.text(MARGIN, HEADER / 2, title, **style.font(1))
    scale = _scale(mode, panels, style)
    draw_scale(canvas, scale, width - MARGIN - 1.4, HEADER / 2 - 0.045, 1.0)
    _draw_band(canvas, frame, panels, area, mode, scale, HEADER, columns)
    return canvas.figure


def decomposition_sheet(
    frame: FrameDecomposition,
    images: Mapping[str, np.ndarray] | None = None,
    output: str | None = None,
    *,
    channel: int = 0,
    modes: Sequence[str] = ('sigmoid', 'signed'),
    columns: int = 5,
    width: float = 11.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws cameras, sensor points and annotation, and below them the decomposition, on one page.

    Args:
        frame: The decomposition.
        images: The cameras' pictures (H, W, 3), uint8 or floats in [0, 1], by camera.
        output: Which output; None: the first.
        channel: Which channel of it.
        modes: Which maps, see ``decomposition_maps``, from top to bottom.
        columns: At most so many maps side by side.
        width: Of the figure, inches.
        title: Above the picture; None: frame and output; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        UnknownNameError: If there is no such mode or output.
        InputError: If the output is no map.
    """
    for mode in modes:
        _check_mode(mode)
    style = style_of(style)
    panels, area = panels_of(frame, output, channel)
    columns = min(columns, len(panels))
    band = BAND + band_height(len(panels), columns, width, area)
    aspect = (area.z[1] - area.z[0]) / (area.x[1] - area.x[0])
    # Two rows of three pictures are as high as the square map beside them.
    inner = width - 2 * MARGIN
    camera_width, camera_height = _camera_size(images, inner - GAP, aspect)
    overview = inner - camera_width - (GAP if camera_width else 0)
    overview = overview if camera_width else min(overview, 4.5)
    top = max(camera_height, overview * aspect)
    canvas = Canvas(width, HEADER + top + GAP + band * len(modes), style)
    title = _title(frame, output) if title is None else title
    canvas.text(MARGIN, HEADER / 2, title, **style.font(2))
    _draw_legend(canvas, frame, width, style)
    if images:
        draw_cameras(canvas, images, MARGIN, HEADER, camera_width)
    axes = canvas.axes(width - MARGIN - overview, HEADER, overview, overview * aspect)
    draw_overview(axes, frame, area, style, component_colours((*frame.points, *frame.modalities)))
    for i, mode in enumerate(modes):
        y = HEADER + top + GAP + i * band
        scale = _scale(mode, panels, style)
        canvas.text(MARGIN, y + BAND / 2, MODES[mode], **style.font(1))
        draw_scale(canvas, scale, width - MARGIN - 1.4, y + BAND / 2 - 0.045, 1.0)
        _draw_band(canvas, frame, panels, area, mode, scale, y + BAND, columns)
    return canvas.figure


def panels_of(
    frame: FrameDecomposition, output: str | None, channel: int
) -> tuple[list[Panel], BevArea]:
    """Returns the maps of a page and what they cover."""
    found = frame.find_output(output)
    parts = bev_of(found, output or next(iter(frame.outputs)), channel)
    prediction = array(found.value[channel])
    region = found.value[channel] > 0
    means = mean_parts(found, region).tolist() if region.any() else [None] * len(parts)
    whole = None if means[0] is None else sum(means)
    panels = [Panel('prediction', prediction, _mean(whole))]
    for name, values, mean in zip(found.names, parts, means, strict=True):
        panels.append(Panel(name, values, _mean(mean)))
    panels += [Panel(name, array(v[channel])) for name, v in frame.references.items()]
    return panels, area_of(frame, prediction.shape)


def _mean(value: float | None) -> str:
    return '' if value is None else f'mean {value:+.2f} where predicted'.replace('-', '−')


def band_height(count: int, columns: int, width: float, area: BevArea) -> float:
    """Returns the height of ``count`` maps in rows of ``columns``, inches."""
    cell = _cell(width, columns)
    aspect = (area.z[1] - area.z[0]) / (area.x[1] - area.x[0])
    return -(-count // columns) * (LABEL + cell * aspect + GAP)


def _cell(width: float, columns: int) -> float:
    return (width - 2 * MARGIN - GAP * (columns - 1)) / columns


def _draw_band(
    canvas: Canvas,
    frame: FrameDecomposition,
    panels: Sequence[Panel],
    area: BevArea,
    mode: str,
    scale: Scale,
    top: float,
    columns: int,
) -> None:
    style = canvas.style
    colours = component_colours((*frame.modalities, BIAS))
    cell = _cell(canvas.width, columns)
    height = cell * (area.z[1] - area.z[0]) / (area.x[1] - area.x[0])
    for i, panel in enumerate(panels):
        left = MARGIN + i % columns * (cell + GAP)
        y = top + i // columns * (LABEL + height + GAP)
        colour = colours.get(panel.title, style.text)
        canvas.text(left, y + LABEL / 2, panel.title, **style.font(0, color=colour, weight='bold'))
        axes = canvas.axes(left, y + LABEL, cell, height)
        values = sigmoid(panel.values) if mode == 'sigmoid' else panel.values
        draw_map(axes, values, area, scale, f'{mode}-{panel.title}')
        draw_truth(axes, frame, area, style, 0.6)
        draw_ego(axes, style, 3.5)
        draw_frame(axes, style)
        if panel.note and mode == 'signed':
            draw_note(axes, panel.note, style)


def _scale(mode: str, panels: Sequence[Panel], style: Style) -> Scale:
    if mode == 'sigmoid':
        return sigmoid_scale(style)
    return signed_scale(np.stack([panel.values for panel in panels]), style)


def _camera_size(
    images: Mapping[str, np.ndarray] | None, width: float, aspect: float
) -> tuple[float, float]:
    """Width and height of the cameras such that the map beside them is as high."""
    if not images:
        return 0.0, 0.0
    height, columns = 0.0, min(3, len(images))
    shape = next(iter(images.values())).shape
    rows = -(-len(images) // columns)
    per_width = rows * shape[0] / shape[1] / columns
    camera = width * aspect / (aspect + per_width)
    camera = min(max(camera, 0.4 * width), 0.8 * width)
    height = camera * per_width
    return camera, height


def _draw_legend(canvas: Canvas, frame: FrameDecomposition, width: float, style: Style) -> None:
    colours = component_colours((*frame.points, *frame.modalities))
    entries = [(f'{n}: {len(p)} points', colours[n]) for n, p in frame.points.items()]
    if frame.ground_truth is not None:
        entries.append(('annotation', style.truth))
    x = width - MARGIN
    renderer = canvas.figure.canvas.get_renderer()
    for text, colour in reversed(entries):
        font = style.font(-0.5, color=colour, weight='bold')
        drawn = canvas.figure.text(
            x / canvas.width, 1 - HEADER / 2 / canvas.height, text, ha='right', va='center', **font
        )
        x -= drawn.get_window_extent(renderer).width / canvas.figure.dpi + 0.2


def _title(frame: FrameDecomposition, output: str | None, *more: str) -> str:
    name = output or next(iter(frame.outputs))
    return join_title(frame.frame_id, 'LMD', f'output {name}', *more)


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise UnknownNameError(f'Unknown mode {mode!r}: expected one of {list(MODES)}.')
