"""Checks of what pictures are asked for, before there is anything to draw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.checks import require_choice, require_number, require_text, require_whole
from .style import FORMATS, style_of

#: Pixels per inch beyond which a page of ten inches has more than a billion pixels.
MAX_DPI = 2400


def check_options(options: Mapping[str, Any]) -> None:
    """Refuses options of pictures that are wrong whatever is drawn.

    Args:
        options: Some of ``style``, ``suffix``, ``dpi``, ``max_objects``, ``target`` and ``output``,
            arguments of ``render_frame`` and ``render_decomposition``.

    Raises:
        UnknownNameError: If the style or the suffix is unknown.
        InputError: If another option is of the wrong kind or out of its range.
    """
    if 'style' in options:
        style_of(options['style'])
    if 'suffix' in options:
        require_choice('suffix', options['suffix'], [f'.{kind}' for kind in FORMATS])
    require_number('dpi', options.get('dpi'), above=0, most=MAX_DPI, optional=True)
    require_whole('max_objects', options.get('max_objects', 8), least=0)
    require_text('target', options.get('target'), 'score')
    require_text('output', options.get('output'), 'heads.segmentation')
