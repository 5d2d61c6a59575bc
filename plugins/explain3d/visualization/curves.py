"""Deletion and Insertion curves (Fig. 5 of FFAM)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ..core.errors import InputError
from ..metrics.protocol import common_protocol
from ..metrics.saliency import ObjectRecord
from .style import TURBO, Style, style_of


def curve_figure(
    records: Sequence[ObjectRecord],
    category: str = 'all',
    width: float = 7.0,
    style: str | Style = 'white',
) -> Figure:
    """Draws the mean score over the steps, a line for each method and target.

    Args:
        records: With curves, of one protocol.
        category: A class, or ``'all'``.
        width: Of the figure, inches.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If there are no curves, or protocols are mixed.
    """
    common_protocol(record.protocol for record in records)
    style = style_of(style)
    chosen = [r for r in records if r.curves and category in ('all', r.category)]
    if not chosen:
        raise InputError(
            f'Expected records with curves for {category!r}, received none: measure deletion or '
            'insertion.'
        )
    rows = list(dict.fromkeys((r.method, r.target) for r in chosen))
    kinds = list(dict.fromkeys(kind for r in chosen for kind in r.curves))
    one_target = len({target for _, target in rows}) == 1
    figure = Figure(figsize=(width, 0.42 * width), facecolor=style.background, layout='constrained')
    for place, kind in enumerate(kinds):
        axes = figure.add_subplot(1, len(kinds), place + 1, facecolor=style.background)
        for i, row in enumerate(rows):
            curves = np.array([r.curves[kind] for r in chosen if (r.method, r.target) == row])
            mean = curves.mean(0)
            label = row[0] if one_target else f'{row[0]}, {row[1]}'
            label += f' ({np.mean((mean[1:] + mean[:-1]) / 2):.3f})'
            colour = TURBO((i + 0.5) / len(rows))
            axes.plot(np.linspace(0, 1, len(mean)), mean, label=label, color=colour, marker='.')
        axes.set_ylim(0, 1)
        axes.set_xlim(0, 1)
        axes.set_title(f'{kind.capitalize()}, {category}, n = {len(curves)}', **style.font(1))
        part = 'removed' if kind == 'deletion' else 'put back'
        axes.set_xlabel(f'part of the local region {part}', **style.font())
        axes.set_ylabel('mean score (3D IoU)', **style.font())
        axes.grid(color=style.muted, alpha=0.3)
        axes.tick_params(colors=style.text, labelsize=style.font_size - 1)
        axes.legend(fontsize=style.font_size - 1, frameon=False, labelcolor=style.text)
    return figure
