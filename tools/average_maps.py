#!/usr/bin/env python
"""Average saliency maps of the detections in a folder of results, true against false positives.

    tools/average_maps.py work_dirs/ffam
    tools/average_maps.py work_dirs/second work_dirs/centerpoint --compare --out-dir work_dirs/fig7

The results are those of a test run with an explainer, in MMDetection3D or OpenPCDet. Writes
{class}.npz, table.md, table.csv, table.json, detections.csv and pictures (docs/average_maps.md).
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from explain3d.core.results import ResultStore
from explain3d.core.structures import Explanation
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import SCALES, WEIGHTS, AverageProtocol
from explain3d.metrics.average_shares import FrameShare, share_of
from explain3d.visualization.average_render import write_averages, write_detectors
from explain3d.visualization.style import FORMATS, STYLES


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folders', nargs='+', type=Path, help='of result files; are put together')
    parser.add_argument('--compare', action='store_true',
                        help='each folder is a detector of its own')  # fmt: skip
    parser.add_argument('--out-dir', type=Path, help='default: averages in the first folder')
    parser.add_argument('--cells', nargs=3, type=int, metavar=('L', 'W', 'H'),
                        help='cells of the box, for all classes')  # fmt: skip
    parser.add_argument('--margin', type=float, help='around the box, in half sizes')
    parser.add_argument('--weight', choices=WEIGHTS)
    parser.add_argument('--scale', choices=SCALES)
    parser.add_argument('--iou-thr', type=_thresholds, help='0.5, or "dict(car=0.7, truck=0.5)"')
    parser.add_argument('--iou', choices=('3d', 'bev'))
    parser.add_argument('--min-objects', type=int, help='in a cell, to compare maps there')
    parser.add_argument('--draws', type=int, help='resamples of the intervals')
    parser.add_argument('--no-pictures', action='store_true', help='arrays and tables alone')
    parser.add_argument('--style', choices=sorted(STYLES), default='white')
    parser.add_argument('--format', choices=FORMATS, default='png')
    return parser.parse_args(argv)


def _thresholds(text: str) -> Any:
    call = ast.parse(text, mode='eval').body
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == 'dict':
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    return ast.literal_eval(call)


def protocol_of(args: argparse.Namespace) -> AverageProtocol:
    """Returns the protocol of a command line."""
    names = ('cells', 'margin', 'weight', 'scale', 'iou_thr', 'iou', 'min_objects', 'draws')
    return AverageProtocol(
        **{name: getattr(args, name) for name in names if getattr(args, name) is not None}
    )


def shares(folders: Sequence[Path], protocol: AverageProtocol) -> Iterator[FrameShare]:
    """Yields what each frame in the folders contributes, one at a time to keep memory small."""
    for folder in folders:
        paths = ResultStore(folder).paths()
        if not paths:
            raise SystemExit(
                f'{folder} has no result files: expected those of a test run with an explainer '
                '(tools/test.py CONFIG --out-dir DIR).'
            )
        for found in ResultStore(folder):
            if not isinstance(found, Explanation):
                raise SystemExit(
                    f'{folder} holds results of the kind {found.kind!r}: expected saliency maps.'
                )
            yield share_of(found, protocol)


def main(argv: Sequence[str] | None = None) -> None:
    """Averages, writes, prints."""
    args = parse_args(argv)
    protocol = protocol_of(args)
    out = args.out_dir or args.folders[0] / 'averages'
    if out.resolve() in {folder.resolve() for folder in args.folders}:
        raise SystemExit(
            f'--out-dir is {out}, a folder of results: expected another, as every .npz in there is '
            'taken for a result.'
        )
    drawn = dict(style=args.style, suffix=f'.{args.format}')
    options = dict(pictures=not args.no_pictures, **drawn)
    if not args.compare:
        print(
            write_averages(MapCollection(shares(args.folders, protocol), protocol), out, **options)
        )
        print(f'\nWritten to {out}')
        return
    collections = {f.name: MapCollection(shares([f], protocol), protocol) for f in args.folders}
    if len(collections) < len(args.folders):
        raise SystemExit('--compare names detectors by their folders: expected different names.')
    for name, collection in collections.items():
        print(f'## {name}\n\n{write_averages(collection, out / name, **options)}\n')
    if not args.no_pictures:
        write_detectors(collections, out, **drawn)
    print(f'Written to {out}')


if __name__ == '__main__':
    main()
