"""Tables of saliency metrics as Markdown, LaTeX and CSV; each says which protocol made it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence

from .intervals import Interval
from .saliency import HIGHER_IS_BETTER
from .saliency_table import Table

#: What figures are called in a table.
TITLES: Mapping[str, str] = {
    'deletion': 'Deletion',
    'insertion': 'Insertion',
    'vea': 'VEA',
    'vea_max': 'VEA (max.)',
    'pg': 'PG',
    'enpg': 'enPG',
    'sparseness': 'Sparseness',
    'stability': 'Stability',
    'randomisation': 'Randomisation',
    'seconds': 'Seconds',
    'passes': 'Passes',
}
_ARROWS = {True: '↑', False: '↓', None: ''}
_LATEX_ARROWS = {True: r'$\uparrow$', False: r'$\downarrow$', None: ''}


def markdown(table: Table, categories: Sequence[str] | None = None) -> str:
    """Returns the table as Markdown: mean and interval, one table for each class.

    Args:
        table: The figures.
        categories: Which classes; default all.
    """
    counts, lines = table.counts(), []
    for category in categories or table.categories:
        lines += [f'**{category}** ({counts[category]} objects)', '']
        head = [f'{TITLES.get(f, f)} {_ARROWS[HIGHER_IS_BETTER.get(f)]}' for f in table.figures]
        lines.append('| method | target | ' + ' | '.join(h.strip() for h in head) + ' |')
        lines.append('|' + '---|' * (len(head) + 2))
        for row in table.rows:
            cells = [_cell(table.cells[row, category, f], counts[category]) for f in table.figures]
            lines.append(f'| {row[0]} | {row[1]} | ' + ' | '.join(cells) + ' |')
        lines.append('')
    return '\n'.join([*lines, f'Protocol: {table.protocol.text()}. {_intervals(table)}'])


def latex(table: Table) -> str:
    """Returns the table as LaTeX (booktabs), classes side by side as in Tables 1 to 3 of FFAM.

    The best mean of a column is in bold; the intervals are in the Markdown and CSV forms.
    """
    counts = table.counts()
    lines = [r'% Needs \usepackage{booktabs}.']
    for figure in table.figures:
        better = HIGHER_IS_BETTER.get(figure)
        title = f'{TITLES.get(figure, figure)} {_LATEX_ARROWS[better]}'.strip()
        columns = [f'{_escaped(c)} ({counts[c]})' for c in table.categories]
        lines += [
            r'\begin{tabular}{ll' + 'c' * len(columns) + '}',
            r'\toprule',
            rf'& & \multicolumn{{{len(columns)}}}{{c}}{{{title}}} \\',
            'Method & Target & ' + ' & '.join(columns) + r' \\',
            r'\midrule',
        ]
        best = {c: _best(table, c, figure, better) for c in table.categories}
        for row in table.rows:
            cells = []
            for c in table.categories:
                mean = table.cells[row, c, figure].mean
                text = '--' if math.isnan(mean) else f'{mean:.3f}'
                cells.append(rf'\textbf{{{text}}}' if mean == best[c] else text)
            names = f'{_escaped(row[0])} & {_escaped(row[1])}'
            lines.append(f'{names} & ' + ' & '.join(cells) + r' \\')
        lines += [r'\bottomrule', r'\end{tabular}', '']
    return '\n'.join([*lines, f'% Protocol: {table.protocol.text()}.', ''])


def csv_text(table: Table) -> str:
    """Returns one line for each method, target, class and figure; the protocol is in each."""
    rows = table.as_rows()
    out = io.StringIO()
    writer = csv.DictWriter(out, [*rows[0], 'protocol'], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, 'protocol': table.protocol.text()})
    return out.getvalue()


def json_text(table: Table) -> str:
    """Returns the protocol and a flat entry for each cell as JSON; NaN becomes null."""
    cells = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in table.as_rows()
    ]
    content = {'protocol': table.protocol.as_dict(), 'cells': cells}
    return json.dumps(content, indent=2, allow_nan=False) + '\n'


def by_class_markdown(table: Table, figures: Sequence[str] | None = None) -> str:
    """Returns a table for each figure, classes side by side as in Tables 1 to 3 and 7 to 9 of FFAM.

    Args:
        table: The figures.
        figures: Which; default all.
    """
    counts, lines = table.counts(), []
    heads = ' | '.join(f'{c} ({counts[c]})' for c in table.categories)
    for figure in figures or table.figures:
        title = f'{TITLES.get(figure, figure)} {_ARROWS[HIGHER_IS_BETTER.get(figure)]}'.strip()
        lines += [
            f'| {title} | target | {heads} |',
            '|' + '---|' * (len(table.categories) + 2),
        ]
        for row in table.rows:
            cells = [_cell(table.cells[row, c, figure], counts[c]) for c in table.categories]
            lines.append(f'| {row[0]} | {row[1]} | ' + ' | '.join(cells) + ' |')
        lines.append('')
    return '\n'.join([*lines, f'Protocol: {table.protocol.text()}. {_intervals(table)}'])


def differences_markdown(
    found: Mapping[tuple[tuple[str, str], str], Interval], reference: tuple[str, str]
) -> str:
    """Returns differences from a reference as Markdown; intervals without 0 are in bold."""
    figures = list(dict.fromkeys(figure for _, figure in found))
    rows = list(dict.fromkeys(row for row, _ in found))
    lines = [
        f'Minus {reference[0]}, target {reference[1]}, object by object:',
        '',
        '| method | target | ' + ' | '.join(TITLES.get(f, f) for f in figures) + ' |',
        '|' + '---|' * (len(figures) + 2),
    ]
    for row in rows:
        cells = list(_signed(found[row, figure] for figure in figures))
        lines.append(f'| {row[0]} | {row[1]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _cell(interval: Interval, expected: int) -> str:
    if interval.count == 0:
        return 'not defined'
    count = '' if interval.count == expected else f', n = {interval.count}'
    return f'{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f}{count})'


def _signed(intervals: Iterator[Interval]) -> Iterator[str]:
    for i in intervals:
        text = f'{i.mean:+.3f} ({i.low:+.3f} to {i.high:+.3f})'
        # An interval over a single frame is a point, and says nothing.
        sure = i.groups > 1 and (i.low > 0 or i.high < 0)
        yield f'**{text}**' if sure else text


def _intervals(table: Table) -> str:
    first = next(iter(table.cells.values()))
    return (
        f'In brackets the {first.level:.0%} interval of the bootstrap over frames; where a figure '
        'is not defined for some objects, n says for how many it is'
    )


def _best(table: Table, category: str, figure: str, better: bool | None) -> float | None:
    means = [table.cells[row, category, figure].mean for row in table.rows]
    means = [mean for mean in means if not math.isnan(mean)]
    if better is None or not means or len(table.rows) < 2:
        return None
    return max(means) if better else min(means)


def _escaped(text: str) -> str:
    for character in '&%$#_{}':
        text = text.replace(character, '\\' + character)
    return text
