"""The table of sensor shares as sentences, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from .sensor_table import Group, SensorTable

#: What the columns mean; a report without it would be misread.
LEGEND = (
    'Share: |h_m| over the sum of |h| in the raw class logit, bias included, mean over boxes. '
    'Part: mean signed part of the logit; parts sum to the logit. Lost: boxes of which no box of '
    'their class is left when that sensor is blanked (black images, no points). Drop: the logit '
    'minus that at the same place without the sensor. r: Pearson correlation over boxes between '
    'share (in brackets: signed part) and drop. Shares say what the logit is made of at this '
    'input, drops what happens at another one; they need not agree.'
)


def sentence(group: Group) -> str:
    """Returns a group's answer in words."""
    shares = ', '.join(f'{name} {_percent(share)}' for name, share in group.shares.items())
    lost = ', '.join(f'blanking {name} loses {_percent(part)}' for name, part in group.lost.items())
    text = f'{group.title} ({group.boxes}): {shares} of the evidence'
    return f'{text}; {lost} of them.' if lost else f'{text}.'


def markdown(table: SensorTable) -> str:
    """Returns the report: sentences, a table of groups, one of attributes, the protocol."""
    lines = ['# Which sensor made these boxes?', '']
    lines += [f'- {sentence(group)}' for group in table.groups if math.isinf(group.range[1])]
    sensors = list(table.groups[0].lost)
    head = ['boxes', 'n', *(f'share {name}' for name in table.names)]
    head += ['logit', *(f'part {name}' for name in table.names)]
    for sensor in sensors:
        head += [f'lost without {sensor}', f'drop without {sensor}', f'r {sensor}']
    lines += ['', _row(head), _rule(len(head))]
    for group in table.groups:
        cells = [group.title, str(group.boxes), *(_percent(v) for v in group.shares.values())]
        cells += [_number(group.logit), *(_number(v) for v in group.parts.values())]
        for sensor in sensors:
            cells += [_percent(group.lost[sensor]), _number(group.drops[sensor])]
            r, signed = group.share_effect[sensor], group.part_effect[sensor]
            cells.append(f'{_number(r)} ({_number(signed)})')
        lines.append(_row(cells))
    head = ['raw attribute, all boxes', *(f'share {name}' for name in table.names)]
    lines += ['', _row(head), _rule(len(head))]
    for attribute, shares in table.attributes.items():
        lines.append(_row([attribute, *(_percent(v) for v in shares.values())]))
    protocol = ', '.join(f'{key} {value}' for key, value in table.protocol.items())
    return '\n'.join([*lines, '', LEGEND, '', f'Protocol: {protocol}.'])


def csv_text(table: SensorTable) -> str:
    """Returns the groups as CSV, one line each; NaN is an empty cell."""
    rows = [_flat(group) for group in table.groups]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: '' if _is_nan(v) else v for k, v in row.items()} for row in rows)
    return stream.getvalue()


def json_text(table: SensorTable) -> str:
    """Returns everything as JSON; NaN is null, an open end of a range too."""
    content = {
        'names': list(table.names),
        'protocol': dict(table.protocol),
        'groups': [_flat(group) for group in table.groups],
        'attributes': {name: dict(shares) for name, shares in table.attributes.items()},
    }
    return json.dumps(_without_nan(content), indent=2, default=str) + '\n'


def figures(table: SensorTable) -> dict[str, float]:
    """Returns an evaluator's scalars: those of all boxes, of each class and each tag."""
    found: dict[str, float] = {}
    for group in table.groups:
        if group.range != (0.0, math.inf):
            continue
        flat = _flat(group)
        name = group.category if group.tag is None else '='.join(group.tag)
        found |= {
            f'{name}/{key}': value
            for key, value in flat.items()
            if key not in ('class', 'from', 'to', 'tag')
        }
    return found


def _flat(group: Group) -> dict[str, Any]:
    row: dict[str, Any] = {
        'class': group.category, 'from': group.range[0], 'to': group.range[1],
        'tag': '' if group.tag is None else '='.join(group.tag),
        'boxes': group.boxes, 'logit': group.logit,
    }  # fmt: skip
    kinds = {
        'share': group.shares, 'part': group.parts, 'lost_without': group.lost,
        'drop_without': group.drops, 'r_share': group.share_effect, 'r_part': group.part_effect,
    }  # fmt: skip
    for kind, values in kinds.items():
        row |= {f'{kind}_{name}': value for name, value in values.items()}
    return row


def _percent(value: float) -> str:
    return '-' if math.isnan(value) else f'{100 * value:.1f} %'


def _number(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.2f}'


def _row(cells: list[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'


def _rule(columns: int) -> str:
    return '|' + '---|' * columns


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
