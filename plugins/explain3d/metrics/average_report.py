"""Figures of average maps as Markdown, CSV and plain data; each says which protocol made it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .average_maps import MapCollection
from .average_statistics import DENSITIES, ZONES, Figure

#: What sets are called in tables and pictures.
SET_NAMES = {'tp': 'true positives', 'fp': 'false positives', 'all': 'all detections'}


class FigureTable:
    """Looks figures up.

    Args:
        figures: From ``average_statistics.figures``.
    """

    def __init__(self, figures: Sequence[Figure]) -> None:
        self._figures = {(f.category, f.which, f.target, f.name): f for f in figures}

    def get(self, category: str, which: str, name: str, target: str = '') -> Figure | None:
        """Returns a figure, or None if there is none."""
        return self._figures.get((category, which, target, name))

    def count(self, category: str, which: str) -> int:
        """Returns how many detections of a class are in a set."""
        found = self.get(category, which, 'count')
        return 0 if found is None else found.count

    def text(self, *key: str, digits: int = 2) -> str:
        """Returns a figure with its interval, or what there is of it."""
        figure = self.get(*key)
        if figure is None or math.isnan(figure.value):
            return '-'
        value = f'{figure.value:.{digits}f}'
        if math.isnan(figure.low):
            return value
        return f'{value} ({figure.low:.{digits}f} to {figure.high:.{digits}f})'


_NO_OBJECT = (
    '**No frame has an annotated object: every detection counts as a false positive. Choose an '
    'annotated split.**'
)


def markdown(collection: MapCollection, figures: Sequence[Figure]) -> str:
    """Returns all figures as Markdown, with protocol and counts."""
    table = FigureTable(figures)
    parts = [_ratios(collection, table), _detections(collection, table)]
    if collection.annotated and not collection.objects:
        parts.insert(0, _NO_OBJECT)
    if collection.annotated:
        parts += [_comparison(collection, table), _similarity(collection, table)]
    parts += [_zones(collection, table), _footer(collection)]
    return '\n\n'.join(parts)


def csv_text(collection: MapCollection, figures: Sequence[Figure]) -> str:
    """Returns one line a figure; the protocol is in each."""
    names = ['class', 'set', 'target', 'figure', 'value', 'low', 'high', 'count', 'protocol']
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(names)
    for f in figures:
        values = [f.category, f.which, f.target, f.name, f.value, f.low, f.high, f.count]
        writer.writerow([*values, collection.protocol.text()])
    return out.getvalue()


def detections_csv(collection: MapCollection) -> str:
    """Returns one line a detection: where it is, and whether it is true."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        ['frame', 'detection', 'class', 'set', 'score', 'overlap', 'distance', 'points', 'around']
    )
    for category in collection.categories:
        stack = collection.stack(category)
        for i, frame in enumerate(stack.frames):
            true = '' if stack.matched is None else ('fp', 'tp')[int(stack.matched[i])]
            distance = float(stack.boxes[i, :2].norm())
            writer.writerow([
                frame, int(stack.detections[i]), category, true, f'{float(stack.scores[i]):.4f}',
                f'{float(stack.overlaps[i]):.4f}', f'{distance:.2f}', int(stack.inside[i]),
                int(stack.around[i]),
            ])  # fmt: skip
    return out.getvalue()


def plain_data(collection: MapCollection, figures: Sequence[Figure]) -> dict[str, Any]:
    """Returns everything as plain data for JSON; NaN becomes None."""

    def plain(figure: Figure) -> dict[str, Any]:
        row = asdict(figure)
        row = {'class': row.pop('category'), 'set': row.pop('which'), **row}
        return {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }

    return {
        'explained': collection.explained,
        'protocol': collection.protocol.as_dict(),
        'frames': list(collection.frames),
        'figures': [plain(figure) for figure in figures],
    }


def _ratios(collection: MapCollection, table: FigureTable) -> str:
    names = ' : '.join(collection.categories) or 'no class was detected'
    lines = [f'**Ratio of classes** ({names})', '']
    for which in collection.sets:
        ratio = ' : '.join(str(table.count(c, which)) for c in collection.categories) or '0'
        lines.append(f'- {SET_NAMES[which]}: {ratio}')
    return '\n'.join(lines)


def _detections(collection: MapCollection, table: FigureTable) -> str:
    lines = [
        '**Detections**: means, densities in points per cubic metre',
        '',
        '| class | set | n | density in the box | the same at 10 m | density around it | points '
        '| distance, m | score | overlap an object > 0.1 |',
        '|' + '---|' * 10,
    ]
    for category in collection.categories:
        for which in collection.sets:
            cells = [
                table.text(category, which, name, digits=digits)
                for name, digits in (
                    ('density', 1), ('density_10m', 1), ('around', 1), ('points', 0),
                    ('distance', 1), ('score', 2), ('near', 2),
                )
            ]  # fmt: skip
            count = table.count(category, which)
            lines.append(f'| {category} | {which} | {count} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _comparison(collection: MapCollection, table: FigureTable) -> str:
    lines = [
        '**False over true positives**',
        '',
        '| class | density in the box | the same at 10 m | density around it '
        '| part that is false |',
        '|' + '---|' * 5,
    ]
    for category in (*collection.categories, 'all'):
        cells = [table.text(category, 'fp/tp', name) for name in (*DENSITIES, 'false')]
        lines.append(f'| {category} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _similarity(collection: MapCollection, table: FigureTable) -> str:
    lines = [
        '**Similarity** of the average maps of false and true positives (correlation over common '
        'cells), beside that of two random parts of the true positives',
        '',
        '| class (cells of region, box) | target | false and true, region | true and true, region '
        '| false and true, box | true and true, box |',
        '|' + '---|' * 6,
    ]
    for category in collection.categories:
        for target in collection.targets:
            cells = [
                table.text(category, 'fp/tp', f'{name}_{where}', target)
                for where in ('region', 'box')
                for name in ('similarity', 'among')
            ]
            common = [
                table.text(category, 'fp/tp', f'cells_{where}', digits=0)
                for where in ('region', 'box')
            ]
            name = f'{category} ({", ".join(common)})'
            lines.append(f'| {name} | {target} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _zones(collection: MapCollection, table: FigureTable) -> str:
    which = 'tp' if collection.annotated else 'all'
    lines = [
        f'**Where the maps of {SET_NAMES[which]} lie**: mean saliency of a zone over that of the '
        'box',
        '',
        '| class | target | ' + ' | '.join(ZONES) + ' |',
        '|' + '---|' * (2 + len(ZONES)),
    ]
    for category in collection.categories:
        for target in collection.targets:
            cells = [table.text(category, which, f'zone_{zone}', target) for zone in ZONES]
            lines.append(f'| {category} | {target} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _footer(collection: MapCollection) -> str:
    made = collection.explained
    select = {k: v for k, v in (made.get('select') or {}).items() if v is not None}
    lines = [
        f'{made["method"]} at {made.get("layer")}, {len(collection.frames)} frames; selection '
        f'{select}; detector {made.get("model") or "not named"}.',
        f'Protocol: {collection.protocol.text()}. In brackets the 95% interval of the bootstrap '
        'over frames'
        + (
            '; for two parts of the true positives, the central 95% of random divisions.'
            if collection.annotated
            else '.'
        ),
    ]
    if select.get('seed') is not None and select.get('top_n') is not None:
        lines.append(
            'Detections were drawn at random: where the better one of two on the same object was '
            'not drawn, the other counts as true.'
        )
    return '\n\n'.join(lines)
