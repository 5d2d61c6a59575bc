"""Which sensor made the boxes: shares as bars, and what blanking each sensor loses."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..lmd.sensor_table import SensorTable
from .lmd_panels import component_colours
from .style import Style, style_of


def share_figure(table: SensorTable, width: float = 9.0, style: str | Style = 'white') -> Figure:
    """Draws a line for each group: shares on the left, lost boxes on the right.

    Args:
        table: The table.
        width: Of the figure, inches.
        style: ``'white'``, ``'dark'`` or a ``Style``.
    """
    style, groups = style_of(style), table.groups
    height = 1.6 + 0.3 * len(groups)
    figure = Figure(figsize=(width, height), facecolor=style.background, layout='constrained')
    shares, lost = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    colours = component_colours(table.names)
    places, left = np.arange(len(groups)), np.zeros(len(groups))
    for name in table.names:
        values = 100 * np.nan_to_num([group.shares[name] for group in groups])
        shares.barh(places, values, left=left, color=colours[name], label=name, height=0.75)
        left += values
    sensors = list(groups[0].lost)
    step = 0.75 / max(len(sensors), 1)
    for i, name in enumerate(sensors):
        values = [100 * group.lost[name] for group in groups]
        place = places + (i - (len(sensors) - 1) / 2) * step
        lost.barh(place, values, color=colours[name], label=f'without {name}', height=0.9 * step)
    shares.set_yticks(places, [f'{group.title} ({group.boxes})' for group in groups])
    shares.invert_yaxis()
    titles = ('share of the class logit, % of the sum of |h|', 'boxes lost, %')
    for axes, title, columns in zip((shares, lost), titles, (len(table.names), 1), strict=True):
        axes.set_facecolor(style.background)
        axes.set_xlim(0, 100)
        axes.set_title(title, **style.font(1))
        axes.tick_params(colors=style.text)
        axes.grid(axis='x', color=style.muted, alpha=0.3)
        if axes.has_data():
            # Those of the lost ones below each other: side by side, two legends look like one.
            axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.03), ncols=columns,
                        frameon=False, labelcolor=style.text)  # fmt: skip
    return figure
