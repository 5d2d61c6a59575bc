#!/usr/bin/env python
"""Prints what a folder of results holds: a table of all frames, and the pictures' paths."""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

from explain3d.core.results import ResultStore, format_table, summarize
from explain3d.lmd.frame import FrameDecomposition
from explain3d.lmd.summary import summarize_frames


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


def main() -> None:
    """Prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='folder of result files')
    parser.add_argument('--targets', nargs='+', help='default: all in the files')
    parser.add_argument('--each', action='store_true', help='a row for each detection')
    args = parser.parse_args()
    frames = list(ResultStore(args.folder))
    decompositions = [found for found in frames if isinstance(found, FrameDecomposition)]
    rows = [
        row
        for found in frames
        if not isinstance(found, FrameDecomposition)
        for row in summarize(found, args.targets)
    ]
    if rows:
        print(format_table(rows if args.each else average(rows)))
        print(
            '\ninside: share of the saliency in the predicted box; top_inside: how often the most '
            'salient point lies in it.'
        )
    if decompositions:
        print(format_table(summarize_frames(decompositions)))
        print(
            "\nlogit: mean over the cells that the model predicts, and its components' parts of "
            'it; share: sum |h_m| over the sum of all components, of the whole map.'
        )
    pictures = sorted((args.folder / 'pictures').glob('*.png'))
    if pictures:
        print(f'{len(pictures)} pictures, the first: {pictures[0]}')


if __name__ == '__main__':
    main()
