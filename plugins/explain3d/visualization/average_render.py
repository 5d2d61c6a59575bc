"""All files of average maps: pictures, arrays and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..core.results_store import file_stem
from ..metrics.average_files import write_arrays, write_tables
from ..metrics.average_maps import AverageMap, MapCollection
from .average_maps import average_panel, average_rows
from .style import Style, save_figure

_ROWS = {'tp': 'true positives', 'fp': 'false positives'}


def write_averages(
    collection: MapCollection,
    folder: str | os.PathLike,
    *,
    style: str | Style = 'white',
    suffix: str = '.png',
    dpi: float | None = None,
) -> str:
    """Writes arrays, tables and pictures of a collection.

    ``{class}.npz``, ``table.md``, ``table.csv``, ``table.json``, ``detections.csv``;
    ``{class}_{set}.png`` for every set that has detections (Fig. 4 of FFAM) and
    ``true_false.png`` (Fig. 6).

    Args:
        collection: The shares of all frames.
        folder: Where; made if needed.
        style: ``'white'``, ``'dark'`` or a ``Style``.
        suffix: ``'.png'``, ``'.pdf'`` or ``'.svg'``.
        dpi: Pixels per inch, default 200.

    Returns:
        The tables as Markdown.

    Raises:
        ResultFileError: If a file cannot be written.
    """
    folder = Path(folder)
    text = write_tables(collection, folder)
    write_arrays(collection, folder)
    averages = {
        which: {category: collection.average(category, which) for category in collection.categories}
        for which in collection.sets
    }
    for which, by_category in averages.items():
        for category, average in by_category.items():
            if average.count and average.targets:
                figure = average_panel(average, style=style)
                path = folder / f'{file_stem(category)}_{which}{suffix}'
                save_figure(figure, path, dpi)
    if collection.annotated and collection.categories and collection.targets:
        rows = {name: averages[which] for which, name in _ROWS.items()}
        title = f'{collection.explained["method"]}, target {collection.targets[0]}'
        figure = average_rows(rows, title=title, style=style)
        save_figure(figure, folder / f'true_false{suffix}', dpi)
    return text


def write_detectors(
    collections: Mapping[str, MapCollection],
    folder: str | os.PathLike,
    *,
    style: str | Style = 'white',
    suffix: str = '.png',
    dpi: float | None = None,
) -> Path | None:
    """Draws the average maps of several detectors below each other (Fig. 7 of FFAM).

    Args:
        collections: By the detector's name; of the true positives where there are annotations.
        folder: Gets ``detectors.png``.
        style: As in ``write_averages``.
        suffix: Likewise.
        dpi: Likewise.

    Returns:
        The file; None if no detector found anything.
    """
    rows: dict[str, dict[str, AverageMap]] = {}
    for name, found in collections.items():
        which = 'tp' if found.annotated else 'all'
        rows[name] = {category: found.average(category, which) for category in found.categories}
    if not any(rows.values()):
        return None
    return save_figure(
        average_rows(rows, style=style), Path(folder) / f'detectors{suffix}', dpi
    )
