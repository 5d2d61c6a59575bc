"""Pictures of what happens to the modalities inside the network, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ..core.errors import InputError
from ..lmd.components import BIAS
from ..lmd.frame import FrameDecomposition
from .lmd import GAP, HEADER, LABEL, MARGIN
from .lmd_panels import (
    area_of,
    component_colours,
    draw_ego,
    draw_frame,
    draw_map,
    draw_scale,
    draw_sensor_points,
    draw_truth,
    relative_scale,
)
from .scene import array
from .style import Canvas, Style, join_title, relative, style_of


def layer_shares(
    shares: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    width: float = 6.5,
    title: str = '',
    style: str | Style = 'white',
) -> Figure:
    """Draws how much of each layer's activation each component makes up, the first layer on top.

    Args:
        shares: (M + 1,) shares by layer, of a frame or their means (``lmd.shares.mean_shares``).
        names: The M + 1 components.
        width: Of the figure, inches.
        title: Above the picture.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there is no layer, or shares and names do not fit.
    """
    style = style_of(style)
    if not shares or any(row.shape != (len(names),) for row in shares.values()):
        raise InputError(
            f'Expected shares of shape ({len(names)},) for at least one layer, received '
            f'{ {name: tuple(row.shape) for name, row in shares.items()} }: capture layers.'
        )
    bar, gap = 0.21, 0.07
    header = HEADER + 0.22
    canvas = Canvas(width, header + len(shares) * (bar + gap) + MARGIN, style)
    canvas.text(MARGIN, HEADER / 2, title or 'Share of each component, layer by layer',
                **style.font(1))  # fmt: skip
    colours = component_colours(names)
    renderer = canvas.figure.canvas.get_renderer()
    label = 0.0
    for i, name in enumerate(shares):
        y = 1 - (header + i * (bar + gap) + bar / 2) / canvas.height
        text = canvas.figure.text(MARGIN / width, y, name, va='center', **style.font(-1))
        label = max(label, text.get_window_extent(renderer).width / canvas.figure.dpi)
    left = MARGIN + 1.05 * label + 0.12
    _draw_names(canvas, names, colours, left, HEADER + 0.06)
    for i, row in enumerate(shares.values()):
        axes = canvas.axes(left, header + i * (bar + gap), width - MARGIN - left, bar)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        start = 0.0
        for name, share in zip(names, array(row), strict=True):
            if not np.isfinite(share):
                continue
            axes.barh(0.5, share, 1.0, start, color=colours[name], gid=f'share-{name}')
            if share > 0.06:
                font = style.font(-1.5, color='white', weight='bold', ha='center', va='center')
                axes.text(start + share / 2, 0.48, f'{100 * share:.0f} %', **font)
            start += share
    return canvas.figure


def _draw_names(
    canvas: Canvas, names: Sequence[str], colours: Mapping[str, str], left: float, top: float
) -> None:
    renderer, x = canvas.figure.canvas.get_renderer(), left
    for name in names:
        text = canvas.figure.text(
            x / canvas.width, 1 - top / canvas.height, name, va='center',
            **canvas.style.font(-0.5, color=colours[name], weight='bold'),
        )  # fmt: skip
        x += text.get_window_extent(renderer).width / canvas.figure.dpi + 0.18


def layer_maps(
    frame: FrameDecomposition,
    layers: Sequence[str] | None = None,
    *,
    width: float | None = None,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws where each component lies in each captured layer: sums of |h_m| over the channels.

    The maps of a layer share one scale, which ends at the largest of them.

    Args:
        frame: The decomposition; ``energies`` must be there.
        layers: Which layers, from left to right; None: all.
        width: Of the figure, inches; None: 1.5 a layer, at least 5.
        title: Above the picture; None: the frame; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If no layer was captured.
    """
    style = style_of(style)
    layers = list(frame.energies if layers is None else layers)
    if not layers or any(name not in frame.energies for name in layers):
        raise InputError(
            f'Frame {frame.frame_id!r} has maps of the layers {list(frame.energies)}, received '
            f'{layers}: expected at least one of them. Capture layers (capture=[...]).'
        )
    area = area_of(frame, frame.energies[layers[0]].shape)
    left, columns = MARGIN + LABEL, len(layers)
    width = max(1.5 * columns, 5.0) if width is None else width
    cell = (width - left - MARGIN - GAP * (columns - 1)) / columns
    height = cell * (area.z[1] - area.z[0]) / (area.x[1] - area.x[0])
    top = HEADER + LABEL
    canvas = Canvas(width, top + len(frame.names) * (height + GAP) + MARGIN, style)
    title = join_title(frame.frame_id, 'LMD inside the network') if title is None else title
    canvas.text(MARGIN, HEADER / 2, title, **style.font(1))
    scale = relative_scale(style, '|h|')
    draw_scale(canvas, scale, width - MARGIN - 1.3, HEADER / 2 - 0.045, 1.0)
    colours = component_colours(frame.names)
    for i, name in enumerate(frame.names):
        font = style.font(0, color=colours[name], weight='bold', rotation=90, ha='center')
        canvas.text(MARGIN + LABEL / 2, top + i * (height + GAP) + height / 2, name, **font)
    for j, layer in enumerate(layers):
        x = left + j * (cell + GAP)
        maps = relative(array(frame.energies[layer]))
        label = f'{layer}  {maps.shape[1]} × {maps.shape[2]}'
        canvas.text(x, HEADER + LABEL / 2, label, **style.font(-2, color=style.text))
        for i, name in enumerate(frame.names):
            axes = canvas.axes(x, top + i * (height + GAP), cell, height)
            draw_map(axes, maps[i], area, scale, f'{layer}-{name}')
            draw_truth(axes, frame, area, style, 0.4)
            draw_ego(axes, style, 3.0)
            draw_frame(axes, style)
    return canvas.figure


def gradcam_maps(
    frame: FrameDecomposition,
    *,
    width: float | None = None,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws class activation maps from above, each over its own maximum (Fig. 6 of LMD).

    A row for each modality, with that sensor's points, and one for Seg-Grad-CAM where it is
    there; a column for each layer.

    Args:
        frame: The decomposition; ``gradcams`` must be there.
        width: Of the figure, inches; None: 2.2 a layer, at least 4.
        title: Above the picture; None: the frame; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there is no such map.
    """
    style = style_of(style)
    if not frame.gradcams:
        raise InputError(
            f'Frame {frame.frame_id!r} has no class activation maps: expected some. Make them '
            "with gradcam=dict(layers=['path.of.layer'])."
        )
    rows, layers = (
        list(dict.fromkeys(name.split(' @ ')[part] for name in frame.gradcams)) for part in (0, 1)
    )
    area = area_of(frame, next(iter(frame.gradcams.values())).shape)
    left, width = MARGIN + LABEL, max(2.2 * len(layers), 4.0) if width is None else width
    cell = (width - left - MARGIN - GAP * (len(layers) - 1)) / len(layers)
    height = cell * (area.z[1] - area.z[0]) / (area.x[1] - area.x[0])
    top = HEADER + LABEL
    canvas = Canvas(width, top + len(rows) * (height + GAP) + MARGIN, style)
    title = join_title(frame.frame_id, 'Grad-CAM') if title is None else title
    canvas.text(MARGIN, HEADER / 2, title, **style.font(1))
    scale = relative_scale(style, '')
    draw_scale(canvas, scale, width - MARGIN - 1.3, HEADER / 2 - 0.045, 1.0)
    colours = component_colours((*frame.points, *frame.modalities, BIAS))
    for j, layer in enumerate(layers):
        canvas.text(left + j * (cell + GAP), HEADER + LABEL / 2, layer, **style.font(-1))
    for i, name in enumerate(rows):
        y = top + i * (height + GAP)
        font = style.font(-0.5, color=colours.get(name, style.text), weight='bold')
        label = name if name in frame.modalities else 'Seg-Grad-CAM'
        canvas.text(MARGIN + LABEL / 2, y + height / 2, label, rotation=90, ha='center', **font)
        for j, layer in enumerate(layers):
            found = frame.gradcams.get(f'{name} @ {layer}')
            if found is None:
                continue
            axes = canvas.axes(left + j * (cell + GAP), y, cell, height)
            draw_map(axes, relative(array(found)), area, scale, f'gradcam-{name} @ {layer}')
            seen = {k: v for k, v in frame.points.items() if k == name}
            draw_sensor_points(axes, seen, style, {k: style.muted for k in seen}, 0.25)
            draw_truth(axes, frame, area, style, 0.6)
            draw_ego(axes, style, 3.5)
            draw_frame(axes, style)
    return canvas.figure
