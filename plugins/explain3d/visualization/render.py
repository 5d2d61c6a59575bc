"""All pictures of a frame, as files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..core.errors import UnknownNameError
from ..core.results_store import file_stem
from ..core.structures import Explanation
from .bev import bev
from .options import check_options
from .panels import attribute_panel, concept_panel, global_view
from .perspective import object_view
from .scene import Scene, target_of
from .sheet import contact_sheet
from .style import Style, save_figure

KINDS = ('sheet', 'bev', 'objects', 'attributes', 'global', 'concepts')


def render_frame(
    explanation: Explanation,
    folder: str | os.PathLike,
    kinds: Sequence[str] = ('sheet',),
    image: np.ndarray | str | os.PathLike | None = None,
    *,
    target: str | None = None,
    max_objects: int = 8,
    style: str | Style = 'white',
    suffix: str = '.png',
    dpi: float | None = None,
    only_missing: bool = False,
) -> list[Path]:
    """Draws a frame's pictures and writes each as ``{frame}_{kind}{suffix}``.

    Kinds: ``sheet``, ``bev``, ``objects`` (``{frame}_object_003.png``, one per detection),
    ``attributes`` (one per detection, all targets), ``global``, ``concepts``. A map that the
    method does not have gives no picture.

    Args:
        explanation: K detections, N points; any K and N, also 0.
        folder: Where the files go; made if needed.
        kinds: What to draw.
        image: Camera picture for the sheet, see ``contact_sheet``.
        target: Which target's maps; None: the first.
        max_objects: At most so many detections get pictures of their own, best scores first.
        style: ``'white'``, ``'dark'`` or a ``Style``.
        suffix: ``'.png'``, ``'.pdf'`` or ``'.svg'``.
        dpi: Pixels per inch, default 200.
        only_missing: Whether pictures whose files are there are not drawn.

    Returns:
        The files that were written, in the order of ``kinds``.

    Raises:
        UnknownNameError: If a kind, the style, the suffix or the target is not known.
        InputError: If another option is of the wrong kind or out of its range.
        ResultFileError: If a file cannot be written.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UnknownNameError(
            f'Unknown kinds of pictures {unknown}: expected some of {list(KINDS)}.'
        )
    check_options(dict(target=target, max_objects=max_objects, style=style, suffix=suffix, dpi=dpi))
    if target is not None:
        target_of(explanation, target)
    stem = file_stem(explanation.frame_id)
    paths = []
    for kind in kinds:
        for name, draw in _figures(kind, explanation, image, target, max_objects, style):
            path = Path(folder) / f'{stem}_{name}{suffix}'
            if not (only_missing and path.is_file()):
                paths.append(save_figure(draw(), path, dpi))
    return paths


def _figures(
    kind: str,
    explanation: Explanation,
    image: np.ndarray | str | os.PathLike | None,
    target: str | None,
    max_objects: int,
    style: str | Style,
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yields the name of each picture of a kind, and what draws it."""
    maps = explanation.maps
    best = Scene.of(explanation).best(max_objects)
    if kind == 'sheet':
        yield (
            'sheet',
            partial(
                contact_sheet, explanation, image, target, max_objects=max_objects, style=style
            ),
        )
    elif kind == 'bev':
        yield 'bev', partial(bev, explanation, target=target, style=style)
    elif kind == 'objects':
        for k in best:
            yield f'object_{k:03d}', partial(object_view, explanation, k, target, style=style)
    elif kind == 'attributes':
        for k in best:
            yield f'attributes_{k:03d}', partial(attribute_panel, explanation, k, style=style)
    elif kind == 'global' and maps.global_map is not None:
        yield 'global', partial(global_view, explanation, style=style)
    elif kind == 'concepts' and maps.concepts is not None and len(maps.concepts):
        yield 'concepts', partial(concept_panel, explanation, style=style)
