"""Average maps and their figures as files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.errors import ResultFileError
from ..core.results_archive import Arrays, open_archive, write_archive
from ..core.results_atomic import atomic_write
from ..core.results_check import ArrayCheck, check_counts, check_keys, check_texts, seal, unseal
from ..core.results_store import file_stem
from .average_maps import AverageMap, MapCollection
from .average_protocol import WEIGHTS, Grid
from .average_report import csv_text, detections_csv, markdown, plain_data
from .average_statistics import Figure, figures

_ARRAYS = ('saliency', 'points', 'objects', 'size')
#: Detections in the columns of cells along length, width and height.
_COLUMNS = ('columns_length', 'columns_width', 'columns_height')


def write_tables(
    collection: MapCollection,
    folder: str | os.PathLike,
    found: Sequence[Figure] | None = None,
) -> str:
    """Writes ``table.md``, ``table.csv``, ``table.json`` and ``detections.csv``.

    Args:
        collection: The shares of all frames.
        folder: Where; made if needed.
        found: Its figures, where they are known.

    Returns:
        The Markdown.

    Raises:
        ResultFileError: If a file cannot be written.
    """
    found = figures(collection) if found is None else found
    text = markdown(collection, found)
    content = {
        'table.md': text + '\n',
        'table.csv': csv_text(collection, found),
        'table.json': json.dumps(plain_data(collection, found), indent=2, allow_nan=False) + '\n',
        'detections.csv': detections_csv(collection),
    }
    for name, part in content.items():
        with atomic_write(Path(folder) / name, f'the table {name}') as file:
            file.write(part.encode())
    return text


def averaged_in(folder: str | os.PathLike) -> dict[str, object] | None:
    """Returns what made the maps whose tables are in a folder, None if there are none."""
    try:
        return json.loads((Path(folder) / 'table.json').read_bytes())['explained']
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_arrays(collection: MapCollection, folder: str | os.PathLike) -> list[Path]:
    """Writes the average maps of each class as ``{class}.npz``; see ``save_averages``.

    Raises:
        ResultFileError: If a file cannot be written.
    """
    paths = []
    for category in collection.categories:
        averages = {which: collection.average(category, which) for which in collection.sets}
        path = Path(folder) / f'{file_stem(category)}.npz'
        about = {'explained': collection.explained, 'protocol': collection.protocol.as_dict()}
        paths.append(save_averages(path, averages, about))
    return paths


def save_averages(
    path: str | os.PathLike, averages: Mapping[str, AverageMap], about: Mapping[str, object]
) -> Path:
    """Writes the average maps of one class: ``{set}_saliency`` and so on, and ``metadata``.

    Args:
        path: Ends in ``.npz``; a file that is there is replaced.
        averages: By the name of the set.
        about: Protocol and what made the maps, as plain data.

    Raises:
        ResultFileError: If the file cannot be written.
    """
    first = next(iter(averages.values()))
    meta = {
        **about,
        'category': first.category,
        'targets': list(first.targets),
        'cells': list(first.grid.cells),
        'pad': list(first.grid.pad),
        'weight': first.weight,
        'count': {which: average.count for which, average in averages.items()},
    }
    arrays = {
        f'{which}_{name}': value.numpy()
        for which, average in averages.items()
        for name, value in _arrays(average).items()
    }
    with atomic_write(path, f'the average maps of {first.category}') as file:
        write_archive(file, seal(meta, arrays))
    return Path(path)


def load_averages(path: str | os.PathLike) -> dict[str, AverageMap]:
    """Reads what ``save_averages`` wrote, by the name of the set.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultFileError: If it does not hold average maps, or they are not those that were written.
    """
    fault = 'holds no average maps'
    with open_archive(path, 'file of average maps', 'Average again.', fault) as archive:
        arrays = archive.read_all()
        meta = unseal(arrays)
        _check(meta, arrays)
        return {
            which: AverageMap(
                category=meta['category'],
                grid=Grid(tuple(meta['cells']), tuple(meta['pad'])),
                targets=tuple(meta['targets']),
                count=count,
                weight=meta['weight'],
                columns=tuple(torch.from_numpy(arrays[f'{which}_{name}']) for name in _COLUMNS),
                **{name: torch.from_numpy(arrays[f'{which}_{name}']) for name in _ARRAYS},
            )
            for which, count in meta['count'].items()
        }


def _check(meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Raises ResultFileError unless metadata and arrays fit each other."""
    check_keys(meta, {'category': str, 'cells': list, 'pad': list, 'count': dict, 'weight': str})
    check_texts(meta, 'targets')
    check_counts(meta['cells'], 'cells', 1)
    check_counts(meta['pad'], 'pad', 0)
    check_counts(list(meta['count'].values()), 'count', 0)
    if meta['weight'] not in WEIGHTS or len(meta['cells']) != 3 or len(meta['pad']) != 3:
        raise ResultFileError(f'its cells are {meta["cells"]}, averaged over {meta["weight"]!r}')
    x, y, z = Grid(tuple(meta['cells']), tuple(meta['pad'])).shape
    check, known = ArrayCheck(arrays), []
    for which, count in meta['count'].items():
        check(f'{which}_saliency', (len(meta['targets']), x, y, z), gaps=True)
        check(f'{which}_points', (x, y, z), 'i', low=0)
        check(f'{which}_objects', (x, y, z), 'i', low=0, high=count)
        check(f'{which}_size', (3,), low=0, gaps=True)
        for name, shape in zip(_COLUMNS, ((y, z), (x, z), (x, y)), strict=True):
            check(f'{which}_{name}', shape, 'i', low=0, high=count)
        known += [f'{which}_{name}' for name in (*_ARRAYS, *_COLUMNS)]
    check.only(known)


def _arrays(average: AverageMap) -> dict[str, torch.Tensor]:
    found = {name: getattr(average, name) for name in _ARRAYS}
    return found | dict(zip(_COLUMNS, average.columns, strict=True))
