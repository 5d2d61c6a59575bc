"""Records of objects to tables: per class and pooled, with counts and intervals."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import InputError, ResultFileError
from ..core.results_archive import refuse_folder
from ..core.results_atomic import atomic_write
from .intervals import Interval, bootstrap, paired_difference
from .protocol import Protocol, common_protocol
from .saliency import ObjectRecord

#: The row of all classes together.
POOLED = 'all'


@dataclass(frozen=True)
class Table:
    """Figures of methods under one protocol.

    Attributes:
        protocol: The one protocol of all records.
        rows: (method, target) in the order in which they came.
        categories: ``'all'`` first, then the classes by name.
        figures: Names of the figures.
        cells: The interval for each row, class and figure.
    """

    protocol: Protocol
    rows: tuple[tuple[str, str], ...]
    categories: tuple[str, ...]
    figures: tuple[str, ...]
    cells: Mapping[tuple[tuple[str, str], str, str], Interval]

    def counts(self) -> dict[str, int]:
        """Returns the number of objects of each class, the same for every row."""
        first = self.rows[0]
        return {
            c: max(
                self.cells[first, c, f].count + self.cells[first, c, f].undefined
                for f in self.figures
            )
            for c in self.categories
        }

    def as_rows(self) -> list[dict[str, Any]]:
        """Returns one flat dict for each cell, for CSV and JSON."""
        return [
            {'method': row[0], 'target': row[1], 'class': c, 'figure': f, **asdict(interval)}
            for (row, c, f), interval in self.cells.items()
        ]


def table_of(records: Sequence[ObjectRecord], by_frame: bool = True, **options: Any) -> Table:
    """Summarises records.

    Args:
        records: Of any number of frames, methods and targets.
        by_frame: Resample frames with their objects, see ``intervals.bootstrap``.
        options: Of ``intervals.bootstrap``.

    Raises:
        InputError: If there are none, two protocols are mixed, an object counts twice, or the
            methods were measured on different objects.
    """
    protocol = common_protocol(record.protocol for record in records)
    groups = _grouped(records)
    categories = (POOLED, *sorted({record.category for record in records}))
    figures = tuple(dict.fromkeys(name for record in records for name in record.figures))
    cells = {}
    for row, members in groups.items():
        for category in categories:
            chosen = [r for r in members.values() if category in (POOLED, r.category)]
            frames = [r.frame for r in chosen] if by_frame else None
            for figure in figures:
                values = [r.figures.get(figure, math.nan) for r in chosen]
                cells[row, category, figure] = bootstrap(values, frames, **options)
    return Table(protocol, tuple(groups), categories, figures, cells)


def differences(
    records: Sequence[ObjectRecord],
    reference: tuple[str, str],
    category: str = POOLED,
    **options: Any,
) -> dict[tuple[tuple[str, str], str], Interval]:
    """Returns each row's figures minus those of ``reference``, object by object.

    Args:
        records: As in ``table_of``.
        reference: Method and target.
        category: A class, or ``'all'``.
        options: Of ``intervals.bootstrap``.

    Returns:
        The interval for each other row and figure.

    Raises:
        InputError: As ``table_of``, or if there is no such row.
    """
    common_protocol(record.protocol for record in records)
    groups = _grouped(records)
    if reference not in groups:
        raise InputError(f'No records of {reference}: expected one of {list(groups)}.')
    figures = tuple(dict.fromkeys(name for record in records for name in record.figures))
    found = {}
    for row, members in groups.items():
        if row == reference:
            continue
        for figure in figures:
            ours, theirs = (
                {n: r.figures.get(figure, math.nan) for n, r in group.items()
                 if category in (POOLED, r.category)}
                for group in (members, groups[reference])
            )  # fmt: skip
            frames = {name: record.frame for name, record in members.items()}
            found[row, figure] = paired_difference(ours, theirs, frames, **options)
    return found


def save_records(records: Sequence[ObjectRecord], path: str | os.PathLike) -> None:
    """Writes records as JSON, whole or not at all; NaN becomes null.

    Records share their protocols, which are written once each.

    Raises:
        ResultFileError: If the system refuses, as on a full disk.
    """
    protocols: list[dict] = []
    rows = []
    for record in records:
        row = asdict(record)
        protocol = row.pop('protocol')
        if protocol not in protocols:
            protocols.append(protocol)
        row['protocol'] = protocols.index(protocol)
        rows.append(_plain(row))
    content = {'protocols': protocols, 'records': rows}
    text = json.dumps({**content, 'checksum': _checksum(content)}, allow_nan=False)
    with atomic_write(path, f'the records {Path(path).name}') as file:
        file.write(text.encode())


def load_records(path: str | os.PathLike) -> list[ObjectRecord]:
    """Reads what ``save_records`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ResultFileError: If it is a folder, not such a file, or not as it was written.
    """
    refuse_folder(path, 'file of records')
    try:
        content = json.loads(Path(path).read_text('utf-8'))
        stored = content.pop('checksum', None)  # Files of earlier versions have none.
        if stored is not None and stored != _checksum(content):
            raise ValueError('they are not those that were written')
        protocols = content['protocols']
        return [_record(row, protocols) for row in content['records']]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ResultFileError(
            f'{path} has no records of a benchmark ({error}): remove it, and run again.'
        ) from error


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _record(row: Mapping[str, Any], protocols: Sequence[Mapping[str, Any]]) -> ObjectRecord:
    """Returns a record.

    Raises:
        ValueError: If an entry has another type than a record's, or is out of its range.
    """
    number = row['protocol']
    if type(number) is not int or not 0 <= number < len(protocols):
        raise ValueError(f'protocol is {number!r:.40}')
    figures = {name: math.nan if v is None else v for name, v in row['figures'].items()}
    record = ObjectRecord(**{**row, 'figures': figures, 'protocol': protocols[number]})
    texts = (record.frame, record.category, record.method, record.target)
    counts = (record.object, record.detection, record.points)
    values = (record.iou, record.score, record.distance, *figures.values())
    values += tuple(value for curve in record.curves.values() for value in curve)
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.protocol, dict):
        raise ValueError(f'names are {texts!r:.80}')
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f'object, detection and points are {counts!r:.80}')
    if not all(type(value) in (int, float) and not math.isinf(value) for value in values):
        raise ValueError(f'figures are {values!r:.80}')
    return record


def _grouped(records: Sequence[ObjectRecord]) -> dict[tuple[str, str], dict[str, ObjectRecord]]:
    groups: dict[tuple[str, str], dict[str, ObjectRecord]] = {}
    for record in records:
        members = groups.setdefault((record.method, record.target), {})
        if record.name in members:
            raise InputError(
                f'Object {record.name} is measured twice for {record.method}, target '
                f'{record.target!r}: expected each once.'
            )
        members[record.name] = record
    first = next(iter(groups.values()), {})
    for row, members in groups.items():
        if members.keys() != first.keys():
            only = sorted(members.keys() ^ first.keys())
            raise InputError(
                f'Methods in one table have to be measured on the same objects: {row} and '
                f'{next(iter(groups))} differ in {len(only)}, as {only[:3]}.'
            )
    return groups


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
