"""All pictures of a frame's decomposition, as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..core.errors import UnknownNameError
from ..core.results_store import file_stem
from ..lmd.frame import FrameDecomposition
from .lmd import decomposition_maps, decomposition_sheet
from .lmd_layers import gradcam_maps, layer_maps, layer_shares
from .options import check_options
from .style import Style, join_title, save_figure

LMD_KINDS = ('sheet', 'sigmoid', 'signed', 'shares', 'layers', 'gradcam')


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises if a kind of picture is not known.

    Raises:
        UnknownNameError: If so.
    """
    unknown = [kind for kind in kinds if kind not in LMD_KINDS]
    if unknown:
        raise UnknownNameError(
            f'Unknown kinds of pictures {unknown}: expected some of {list(LMD_KINDS)}.'
        )


def render_decomposition(
    frame: FrameDecomposition,
    folder: str | os.PathLike,
    kinds: Sequence[str] = ('sheet',),
    images: Mapping[str, np.ndarray] | None = None,
    *,
    output: str | None = None,
    style: str | Style = 'white',
    suffix: str = '.png',
    dpi: float | None = None,
    only_missing: bool = False,
) -> list[Path]:
    """Draws a frame's pictures and writes each as ``{frame}_{kind}{suffix}``.

    Kinds: ``sheet`` (everything on a page), ``sigmoid`` and ``signed`` (the maps), ``shares`` and
    ``layers`` (captured layers), ``gradcam``. What the frame does not have gives no picture.

    Args:
        frame: The decomposition.
        folder: Where the files go; made if needed.
        kinds: What to draw.
        images: The cameras' pictures for the sheet, (H, W, 3) by camera.
        output: Which output; None: the first.
        style: ``'white'``, ``'dark'`` or a ``Style``.
        suffix: ``'.png'``, ``'.pdf'`` or ``'.svg'``.
        dpi: Pixels per inch, default 200.
        only_missing: Whether pictures whose files are there are not drawn.

    Returns:
        The files that were written, in the order of ``kinds``.

    Raises:
        UnknownNameError: If a kind, the style, the suffix or the output is not known.
        InputError: If another option is of the wrong kind or out of its range.
        ResultFileError: If a file cannot be written.
    """
    check_kinds(kinds)
    check_options(dict(output=output, style=style, suffix=suffix, dpi=dpi))
    stem = file_stem(frame.frame_id)
    paths = []
    for kind, draw in _figures(frame, kinds, images, output, style):
        path = Path(folder) / f'{stem}_{kind}{suffix}'
        if not (only_missing and path.is_file()):
            paths.append(save_figure(draw(), path, dpi))
    return paths


def _figures(
    frame: FrameDecomposition,
    kinds: Sequence[str],
    images: Mapping[str, np.ndarray] | None,
    output: str | None,
    style: str | Style,
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yields the name of each picture, and what draws it."""
    for kind in kinds:
        if kind == 'sheet':
            yield kind, partial(decomposition_sheet, frame, images, output, style=style)
        elif kind in ('sigmoid', 'signed'):
            yield kind, partial(decomposition_maps, frame, kind, output, style=style)
        elif kind == 'shares' and frame.shares:
            title = join_title(frame.frame_id, 'share of each component, layer by layer')
            yield kind, partial(layer_shares, frame.shares, frame.names, title=title, style=style)
        elif kind == 'layers' and frame.energies:
            yield kind, partial(layer_maps, frame, style=style)
        elif kind == 'gradcam' and frame.gradcams:
            yield kind, partial(gradcam_maps, frame, style=style)
