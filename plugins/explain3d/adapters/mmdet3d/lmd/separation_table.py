"""The separation figures of a data set as a table, with the protocol that made them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....core.results import atomic_write, format_table, plain
from ....metrics.moments import Moments
from ....metrics.separation import Figure

FROZEN_NOTE = (
    "mode 'frozen' replays the clean sample's slopes, deviations, selections and bias shares: "
    'the network is then one affine map of the modalities, and invariance to the other sensor '
    '(1.00 and 0.00) holds by construction'
)


def table_of(
    moments: Moments, rows: Sequence[tuple[str, str]], figures: Sequence[Figure]
) -> list[dict[str, Any]]:
    """Returns a record for each row: rules, mode, and each figure's mean, deviation and counts."""
    columns = {
        'mean': moments.means, 'std': moments.deviations, 'count': moments.count,
        'undefined': moments.excluded,
    }  # fmt: skip
    table, place = [], 0
    for rules, mode in rows:
        found = {}
        for figure in figures:
            found[figure.name] = {name: _number(v[place]) for name, v in columns.items()}
            place += 1
        table.append({'rules': rules, 'mode': mode, 'figures': found})
    return table


def text_of(
    table: Sequence[dict[str, Any]], figures: Sequence[Figure], components: Sequence[str]
) -> str:
    """Returns the table as text: the figures of Appendix D.2 for the given components.

    Arrows say which direction is better: up where invariance, or sensitivity, is wanted.
    """
    shown = [f for f in figures if f.component in components]
    rows = []
    for record in table:
        row = {'rules': record['rules'], 'mode': record['mode']}
        for figure in shown:
            found = record['figures'][figure.name]
            arrow = {True: ' ↑', False: ' ↓', None: ''}[figure.higher_is_better]
            row[figure.name + arrow] = _text(found)
        rows.append(row)
    return format_table(rows)


def write(path: str | os.PathLike, table: list[dict[str, Any]], protocol: dict[str, Any]) -> Path:
    """Writes protocol and table as JSON, atomically.

    Raises:
        ResultFileError: If the file cannot be written.
    """
    content = {
        'format': 'explain3d.separation',
        'version': 1,
        'protocol': plain(protocol, 'protocol'),
        'table': table,
    }
    with atomic_write(path, 'the separation table') as file:
        file.write(json.dumps(content, indent=1).encode())
    return Path(path)


def scalars(table: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns the means by name, as metrics of a test run; what is not defined is left out."""
    return {
        f'separation/{record["rules"]}/{record["mode"]}/{name}'.replace(' ', '_'): found['mean']
        for record in table
        for name, found in record['figures'].items()
        if found['mean'] is not None
    }


def _number(value: Any) -> float | int | None:
    value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(found: dict[str, Any]) -> str:
    if found['mean'] is None:
        return '-'
    digits = 3 if abs(found['mean']) >= 0.1 else 2
    mean, std = found['mean'], found['std']
    if max(abs(mean), std) >= 1000 or 0 < abs(mean) < 0.005:
        return f'{mean:.{digits - 1}e} ± {std:.1e}'
    return f'{mean:.2f} ± {std:.2f}'
