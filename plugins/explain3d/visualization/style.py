"""Colours, sizes and fonts of all pictures, and the figure they are drawn on."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from ..core.errors import InputError, UnknownNameError
from ..core.results_atomic import atomic_write

#: The paper's colour map.
TURBO: Colormap = matplotlib.colormaps['turbo']

FORMATS = ('pdf', 'png', 'svg')


@dataclass(frozen=True)
class Style:
    """How pictures look; colours are matplotlib's.

    Attributes:
        background: Behind everything.
        text: Titles, captions and the scale bar.
        muted: Range rings, grids and remarks.
        detection: Detected boxes (green in the paper).
        truth: Annotated boxes; a colour that turbo does not have.
        font_size: Points; captions are one smaller, titles one larger.
        cold: Colour of points without saliency; None: the lowest of turbo, which a dark
            background would swallow.
        cold_alpha: Opacity of points without saliency; hot ones are opaque.
    """

    background: str = 'white'
    text: str = '#1a1a1a'
    muted: str = '#8a8f98'
    detection: str = '#00963f'
    truth: str = '#d6249f'
    font_size: float = 8.0
    cold: str | None = None
    cold_alpha: float = 0.4

    def font(self, delta: float = 0.0, **options: Any) -> dict[str, Any]:
        """Returns keyword arguments for a text: size relative to ``font_size``, colour, no TeX."""
        return {
            'fontsize': self.font_size + delta,
            'color': self.text,
            'family': 'DejaVu Sans',
            'parse_math': False,  # Frame and class names may hold a dollar sign.
            'usetex': False,
            **options,
        }

    @property
    def halo(self) -> list[withStroke]:
        """An outline that keeps a text readable on top of points."""
        return [withStroke(linewidth=2.2, foreground=self.background)]


STYLES = {
    'white': Style(),
    'dark': Style(
        background='#101216',
        text='#f2f2f2',
        muted='#70767f',
        detection='#5dff9b',
        truth='#ff6ad5',
        cold='#6b7890',
        cold_alpha=0.7,
    ),
}


def style_of(style: str | Style) -> Style:
    """Returns a style by name, or the one given.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if isinstance(style, Style):
        return style
    if style not in STYLES:
        raise UnknownNameError(f'Unknown style {style!r}: expected one of {sorted(STYLES)}.')
    return STYLES[style]


class Canvas:
    """A figure laid out in inches, independent of pyplot and of the user's settings.

    Args:
        width: Inches.
        height: Inches.
        style: Its background is the figure's.
    """

    def __init__(self, width: float, height: float, style: Style) -> None:
        self.width, self.height, self.style = width, height, style
        self.figure = Figure((width, height), 200, facecolor=style.background, layout='none')
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Adds a panel without ticks or frame; ``left`` and ``top`` from the upper left corner."""
        rectangle = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(rectangle, facecolor=self.style.background)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, left: float, top: float, text: str, **font: Any) -> None:
        """Adds a text at inches from the upper left corner."""
        options = {**self.style.font(), 'va': 'center', **font}
        self.figure.text(left / self.width, 1 - top / self.height, text, **options)


def save_figure(figure: Figure, path: str | os.PathLike, dpi: float | None = None) -> Path:
    """Writes a figure atomically; equal figures give equal bytes as PNG and PDF.

    Args:
        figure: Made by a function of this package.
        path: Its suffix tells the format: ``.png``, ``.pdf`` or ``.svg``; points are pixels in
            the last two, everything else stays vectors.
        dpi: Pixels per inch, default the figure's own 200.

    Raises:
        InputError: If the format is not one of these.
        ResultFileError: If the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise InputError(f'{path}: expected a name that ends in one of {FORMATS}.')
    date = {'png': 'Software', 'pdf': 'CreationDate', 'svg': 'Date'}[kind]
    # The default compression takes longer than drawing does, for a few per cent.
    options = {'pil_kwargs': {'compress_level': 3}} if kind == 'png' else {}
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format=kind,
        dpi=figure.dpi if dpi is None else dpi,
        facecolor=figure.get_facecolor(),
        # The whole figure, whatever the user's settings say about cropping.
        bbox_inches=Bbox.from_bounds(0, 0, *figure.get_size_inches()),
        metadata={date: None},
        **options,
    )
    with atomic_write(path, f'the picture {path.name}') as file:
        file.write(buffer.getbuffer())
    return path


def relative(values: np.ndarray) -> np.ndarray:
    """Returns ``values`` (...) over their maximum, in [0, 1]; zeros if there is nothing positive.

    Raises:
        InputError: If a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise InputError('The saliency to draw has values that are not finite: expected finite.')
    top = values.max(initial=0.0)
    return np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)


def join_title(*parts: str) -> str:
    """Returns the parts that are not empty, with dots between them."""
    return '  ·  '.join(part for part in parts if part)
