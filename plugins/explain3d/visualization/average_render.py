"""All files of average maps: pictures, arrays and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..core.results_store import file_stem
from ..metrics.average_files import write_arrays, write_tables
from ..metrics.average_maps import AverageMap, MapCollection
from ..metrics.average_report import SET_NAMES
from .average_maps import average_panel, average_rows
from .options import check_options
from .style import Style, save_figure


def write_averages(
    collection: MapCollection,
    folder: str | os.PathLike,
    pictures: bool = True,
    **options: str | Style | float | None,
) -> str:
    """Writes arrays, tables and pictures of a collection (docs/average_maps.md).

    Args:
        collection: The shares of all frames.
        folder: Where; made if needed.
        pictures: Whether pictures are among them.
        options: Of ``write_pictures``.

    Returns:
        The tables as Markdown.

    Raises:
        ResultFileError: If a file cannot be written.
    """
    text = write_tables(collection, folder)
    write_arrays(collection, folder)
    if pictures:
        write_pictures(collection, folder, **options)
    return text


def write_pictures(
    collection: MapCollection,
    folder: str | os.PathLike,
    *,
    style: str | Style = 'white',
    suffix: str = '.png',
    dpi: float | None = None,
) -> list[Path]:
    """Draws ``{class}_{set}.png`` (Fig. 4 of FFAM) and ``true_false.png`` (Fig. 6).

    A set without detections has no picture of its own.

    Args:
        collection: The shares of all frames.
        folder: Where; made if needed.
        style: ``'white'``, ``'dark'`` or a ``Style``.
        suffix: ``'.png'``, ``'.pdf'`` or ``'.svg'``.
        dpi: Pixels per inch, default 200.

    Returns:
        The files.

    Raises:
        UnknownNameError: If the style or the suffix is not known.
        InputError: If ``dpi`` is no number or out of its range.
        ResultFileError: If a file cannot be written.
    """
    check_options(dict(style=style, suffix=suffix, dpi=dpi))
    if not collection.targets:
        return []
    folder, paths = Path(folder), []
    averages = {
        which: {category: collection.average(category, which) for category in collection.categories}
        for which in collection.sets
    }
    for which, by_category in averages.items():
        for category, average in by_category.items():
            if average.count:
                figure = average_panel(average, title=_title(average, which), style=style)
                path = folder / f'{file_stem(category)}_{which}{suffix}'
                paths.append(save_figure(figure, path, dpi))
    if collection.annotated and collection.categories:
        rows = {SET_NAMES[which]: averages[which] for which in ('tp', 'fp')}
        title = f'{collection.explained["method"]}, target {collection.targets[0]}'
        figure = average_rows(rows, title=title, style=style)
        paths.append(save_figure(figure, folder / f'true_false{suffix}', dpi))
    return paths


def _title(average: AverageMap, which: str) -> str:
    size = ' x '.join(f'{value:.2f}' for value in average.size.tolist())
    name = SET_NAMES[which].removeprefix('all ')
    return f'{average.category}, mean of {average.count} {name}, box {size} m'


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
    return save_figure(average_rows(rows, style=style), Path(folder) / f'detectors{suffix}', dpi)
