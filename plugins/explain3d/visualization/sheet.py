"""The contact sheet: one picture that shows a frame's explanation at a glance."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from ..core.errors import InputError
from ..core.structures import Explanation
from .bev import describe, draw_bev, fit_extent
from .draw import draw_colour_bar
from .perspective import draw_object
from .scene import Scene, saliency_of
from .style import Canvas, Style, style_of

HEADER, GAP = 0.34, 0.1


def contact_sheet(
    explanation: Explanation,
    image: np.ndarray | str | os.PathLike | None = None,
    target: str | None = None,
    *,
    max_objects: int = 8,
    columns: int = 4,
    width: float = 10.0,
    title: str | None = None,
    style: str | Style = 'white',
) -> Figure:
    """Draws camera image, bird's-eye view and the best detections' own views on one page.

    The bird's-eye view has the largest value of all detections at each point, each map over its
    own maximum; an object's view has that object's map.

    Args:
        explanation: K detections, N points; any K and N, also 0.
        image: The camera's picture: (H, W, 3) or (H, W, 4), uint8 or floats in [0, 1], or a file;
            None for none.
        target: Which target's maps; None: the first.
        max_objects: Draw at most so many objects, those with the highest scores; the sheet says
            how many there are.
        columns: Objects side by side.
        width: Of the figure, inches.
        title: Above the picture; None: frame, method, target and count; '' for none.
        style: ``'white'``, ``'dark'`` or a ``Style``.

    Raises:
        InputError: If ``image`` is no picture.
        UnknownNameError: If there is no such target.
    """
    scene, style = Scene.of(explanation), style_of(style)
    picture = None if image is None else read_image(image)
    best = scene.best(max_objects)
    extent = fit_extent(scene, 'boxes', 0.3, 0.6)
    image_height = 0.0 if picture is None else min(width * picture.shape[0] / picture.shape[1], 4.0)
    bev_height = width * (extent[3] - extent[2]) / (extent[1] - extent[0])
    cell = (width - GAP * (columns - 1)) / columns
    cell_height, rows = 0.75 * cell, -(-len(best) // columns)
    objects_top = HEADER + image_height + GAP * (image_height > 0) + bev_height + GAP
    footer = 0.22
    canvas = Canvas(width, objects_top + rows * (cell_height + GAP) + footer, style)

    if picture is not None:
        axes = canvas.axes(0, HEADER, width, image_height)
        axes.imshow(picture, aspect='equal', interpolation='antialiased')
        axes.set_gid('image')
    axes = canvas.axes(0, objects_top - GAP - bev_height, width, bev_height)
    draw_bev(axes, scene, saliency_of(explanation, None, target), extent, style)
    for place, k in enumerate(best):
        left = place % columns * (cell + GAP)
        top = objects_top + place // columns * (cell_height + GAP)
        axes = canvas.axes(left, top, cell, cell_height)
        draw_object(axes, scene, k, saliency_of(explanation, k, target), style)

    title = describe(explanation, None, target) if title is None else title
    canvas.text(0.1, HEADER / 2, title, **style.font(3))
    draw_colour_bar(canvas, width - 1.55, HEADER / 2 - 0.05, 1.15, 0.1)
    canvas.text(0.1, canvas.height - footer / 2, _remark(len(best), len(scene.boxes)),
                **style.font(-1, color=style.muted))  # fmt: skip
    return canvas.figure


def _remark(shown: int, count: int) -> str:
    if not count:
        return 'No detections to explain.'
    if count == 1:
        return 'The only explained detection, seen from the side of the sensor.'
    number = 'All' if shown == count else f'The {shown} with the highest scores of'
    return (
        f'{number} {count} explained detections, each seen from the side of the sensor and over '
        'the maximum of its own map.'
    )


def read_image(image: np.ndarray | str | os.PathLike) -> np.ndarray:
    """Returns a picture as an array that matplotlib draws.

    Raises:
        InputError: If it is no (H, W), (H, W, 3) or (H, W, 4) array of uint8 or of floats, or a
            file that cannot be read.
    """
    picture = image if isinstance(image, np.ndarray) else _read_file(os.fspath(image))
    shaped = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))
    if not shaped or picture.size == 0 or picture.dtype.kind not in 'uf':
        raise InputError(
            f'The image has the shape {picture.shape} and the type {picture.dtype}: expected '
            '(height, width, 3) of uint8, or of floats in [0, 1].'
        )
    return np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture


def _read_file(path: str) -> np.ndarray:
    try:
        return imread(path)
    except (OSError, ValueError, SyntaxError) as error:  # Broken PNG files are a SyntaxError.
        raise InputError(
            f'The picture {path} cannot be read ({type(error).__name__}: {error}): expected a '
            'complete PNG or JPEG file. Mend or fetch it, or draw other kinds of pictures.'
        ) from error
