"""What a folder of explain3d holds, as text: results of frames, averages, tables, states."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import Explain3DError, ResultFileError
from ...core.results import format_table, load, summarize
from ...core.results_archive import open_archive
from ...lmd.sensor_report import markdown as sensor_markdown
from ...lmd.sensor_table import boxes_of, table_of
from ...lmd.summary import summarize_frames
from ...metrics.average_files import load_averages
from ...metrics.saliency_report import markdown as saliency_markdown
from ...metrics.saliency_table import load_records
from ...metrics.saliency_table import table_of as table_of_records

#: Tables that a run writes beside its files, in the order in which they are looked for.
_TABLES = ('table.md', 'report.md')
_FRAMES = ('explanation', 'decomposition', 'sensor_shares')
_AVERAGES, _OCCAM, _SEPARATION = 'average maps', 'state of OccAM', 'sample of a separation test'


def describe(
    folder: Path, targets: Sequence[str] | None = None, each: bool = False
) -> tuple[list[str], list[str]]:
    """Returns what a folder holds, and what in it could not be read.

    Args:
        folder: The folder.
        targets: Targets of saliency maps to report; None: all in the files.
        each: Whether to give a row for each detection in place of means over a class.

    Returns:
        Paragraphs of text, and a line for each file that could not be read.

    Raises:
        ResultFileError: If there is no such folder, or nothing in it that explain3d wrote.
    """
    if not folder.is_dir():
        raise ResultFileError(f'{folder} is no folder: expected one that a run wrote.')
    found, faults = _results(folder)
    text = []
    if found['explanation']:
        text.append(_saliency(found['explanation'], targets, each))
    if found['decomposition']:
        text.append(_decompositions(found['decomposition']))
    if found['sensor_shares']:
        text.append(_shares(found['sensor_shares']))
    if found[_AVERAGES]:
        text.append(_averages(found[_AVERAGES]))
    text += _tables(folder, faults)
    text += _notes(found)
    pictures = sorted((folder / 'pictures').glob('*.*')) or sorted(folder.glob('*.png'))
    if pictures:
        text.append(f'{len(pictures)} pictures, the first: {pictures[0]}')
    if not text and not faults:
        raise ResultFileError(_nothing(folder))
    return text, faults


def _results(folder: Path) -> tuple[dict[str, list], list[str]]:
    """What is read of each ``.npz``, by its kind, and what could not be read."""
    found: dict[str, list] = defaultdict(list)
    faults = []
    for path in sorted(folder.glob('[!.]*.npz')):
        try:
            kind = kind_of(path)
            read: Callable = dict.fromkeys(_FRAMES, load).get(kind, lambda path: path)
            found[kind].append(load_averages(path) if kind == _AVERAGES else read(path))
        except ResultFileError as error:
            faults.append(str(error))
    return found, faults


def kind_of(path: Path) -> str:
    """Returns what an archive holds: a kind of result, averages, or a state.

    Raises:
        ResultFileError: If it was not written by explain3d.
    """
    with open_archive(path) as archive:
        meta = json.loads(archive.read('metadata').tobytes())
        kinds = {'format': meta.get('format', '').partition('.')[2]}
        kinds |= {'cells': _AVERAGES, 'drawn': _OCCAM, 'key': _SEPARATION}
        found = next((kind for key, kind in kinds.items() if key in meta), None)
        if found is None:
            raise ResultFileError('it was not written by explain3d')
    return found


def average(rows: list[dict]) -> list[dict]:
    """Returns a row for each class and target: means over detections, and how many."""
    groups: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for row in rows:
        groups[row['class'], row['target']].append(row)
    return [
        {
            'class': name,
            'target': target,
            'detections': len(group),
            'score': _mean(group, 'score'),
            'inside': _mean(group, 'inside'),
            'top_inside': _mean(group, 'top_inside'),
        }
        for (name, target), group in groups.items()
    ]


def _mean(rows: list[dict], key: str) -> float:
    values = [row[key] for row in rows if not math.isnan(row[key])]
    return sum(values) / len(values) if values else math.nan


def _saliency(frames: list, targets: Sequence[str] | None, each: bool) -> str:
    rows = [row for frame in frames for row in summarize(frame, targets)]
    if not rows:
        return f'{len(frames)} frames without explained detections.'
    return (
        f'{format_table(rows if each else average(rows))}\n\ninside: share of the saliency in the '
        'predicted box; top_inside: how often the most salient point lies in it.'
    )


def _decompositions(frames: list) -> str:
    return (
        f'{format_table(summarize_frames(frames))}\n\nlogit: mean over the cells that the model '
        "predicts, and its components' parts of it; share: sum |h_m| over the sum of all "
        'components, of the whole map.'
    )


def _shares(frames: list) -> str:
    boxes = [box for frame in frames for box in boxes_of(frame)]
    if not boxes:
        return f'{len(frames)} frames without detections that were decomposed.'
    return sensor_markdown(table_of(boxes, protocol={'frames': len(frames)}))


def _averages(found: list) -> str:
    rows = [
        {'class': a.category, 'set': name, 'detections': a.count, 'points': int(a.points.sum())}
        | {'targets': ', '.join(a.targets), 'cells': ' x '.join(map(str, a.grid.shape))}
        for averages in found
        for name, a in averages.items()
    ]
    return f'Average maps (tools/average_maps.py draws them):\n\n{format_table(rows)}'


def _tables(folder: Path, faults: list[str]) -> list[str]:
    text = [
        f'{path.name}:\n\n{path.read_text("utf-8").strip()}'
        for path in (folder / name for name in _TABLES)
        if path.is_file()
    ]
    readers = {'separation.json': _separation}
    if not (folder / 'table.md').is_file():
        readers['records.json'] = _records
    for name, read in readers.items():
        try:
            if (folder / name).is_file():
                text.append(f'{name}:\n\n{read(folder / name)}')
        except (Explain3DError, LookupError, TypeError, ValueError, AttributeError) as error:
            faults.append(f'{folder / name} could not be read: {error}')
    return text


def _records(path: Path) -> str:
    return saliency_markdown(table_of_records(load_records(path)))


def _separation(path: Path) -> str:
    rows: list[dict[str, Any]] = [
        {'rules': record['rules'], 'mode': record['mode']}
        | {name: figure['mean'] for name, figure in record['figures'].items()}
        for record in json.loads(path.read_text('utf-8'))['table']
    ]
    return f'{format_table(rows)}\n\nMeans; the file has deviations, counts and the protocol.'


def _notes(found: dict[str, list]) -> list[str]:
    """What states are for."""
    remedies = {
        _OCCAM: 'frames that OccAM has begun: the run that wrote them, started again, goes on.',
        _SEPARATION: 'samples of a separation test: tools/test.py, started again, goes on and '
        'writes separation.json beside this folder.',
    }
    return [f'{len(found[kind])} {text}' for kind, text in remedies.items() if found[kind]]


def _nothing(folder: Path) -> str:
    """Says what a folder is in which there is nothing to show, and where to look."""
    names = Counter(path.suffix for path in folder.iterdir() if path.is_file())
    if list(folder.glob('*_[0-9]*.json')) or list(folder.glob('*.failed')):
        return (
            f'{folder} holds the records of single frames ({names[".json"]} files): expected the '
            f'folder of the benchmark, {folder.parent}, whose table sums them up. '
            'tools/benchmark.py, started again, goes on and writes it.'
        )
    if (folder / 'mini_manifest.json').is_file():
        return f'{folder} holds a data set of tools/make_mini_dataset.py: expected results.'
    below = sorted(path.name for path in folder.iterdir() if path.is_dir() and _has_any(path))
    where = f' There may be some in {", ".join(below)}.' if below else ''
    return (
        f'{folder} holds nothing that explain3d wrote ({sum(names.values())} files): expected the '
        f'folder of a run (--out-dir, outputs.dir, results.dir, --out).{where}'
    )


def _has_any(folder: Path) -> bool:
    return any(True for pattern in ('*.npz', '*.json', '*.md') for _ in folder.glob(pattern))
