#!/usr/bin/env python
"""Draws objects under several methods side by side, as Fig. 3 of FFAM.

    tools/compare_methods.py configs/benchmark/benchmark_second_miniworld.py --frames 000200 \
        --methods FFAM "Channel sum" ODAM Grad-CAM "OccAM(samples=300)" Random --out methods.png
    tools/compare_methods.py CONFIG.yaml CHECKPOINT [--pcdet CHECKOUT]       # of OpenPCDet

A row for each class, its matched detection with the most points; a column for each method.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from explain3d.adapters.common.benchmark_command import (
    add_arguments,
    host_of,
    parsed,
    plan_of,
    positive,
)
from explain3d.adapters.common.benchmark_frames import FrameBenchmark
from explain3d.adapters.common.benchmark_run import log_to_stderr
from explain3d.core.errors import Explain3DError, InputError
from explain3d.visualization.comparison import Row, choose_detections, method_panel
from explain3d.visualization.style import STYLES, save_figure


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument('--frames', nargs='+', help='names or numbers; default: the first')
    parser.add_argument('--classes', nargs='+', default=['Car', 'Pedestrian', 'Cyclist'])
    parser.add_argument('--target', default='all')
    parser.add_argument('--columns', type=positive, help='methods side by side; default all')
    parser.add_argument('--style', choices=list(STYLES), default='white')
    parser.add_argument('--threads', type=positive, default=1)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/methods.png'))
    return parsed(parser, argv)


def indices_of(benchmark: FrameBenchmark, wanted: Sequence[str] | None) -> list[int]:
    """Returns the indices of frames given by their name, or by their number.

    Raises:
        InputError: If there is no such frame.
    """
    names = [benchmark.frame_name(i) for i in range(len(benchmark.dataset))]
    found = []
    for text in wanted or ['0']:
        if text in names:
            found.append(names.index(text))
        elif text.isdigit() and int(text) < len(names):
            found.append(int(text))
        else:
            raise InputError(
                f'No frame {text!r}: expected a name as {names[0]!r} or a number below '
                f'{len(names)}.'
            )
    return found


def rows_of(benchmark: FrameBenchmark, indices: Sequence[int], classes: Sequence[str]) -> list[Row]:
    """Returns a row for each class, from the first frame that has it.

    Raises:
        InputError: If no frame has a matched detection of a class, or a method fails.
    """
    rows: dict[str, Row] = {}
    for index in indices:
        missing = [name for name in classes if name not in rows]
        explanations = benchmark.explain(index) if missing else {}
        if not explanations:
            continue
        failed = [name for name in benchmark.explainers if name not in explanations]
        if failed:
            raise InputError(f'Frame number {index}: {failed} failed, see above: leave them out.')
        chosen = choose_detections(next(iter(explanations.values())), missing)
        rows |= {name: (explanations, k) for name, k in chosen.items()}
    missing = [name for name in classes if name not in rows]
    if missing:
        raise InputError(
            f'No detection in these frames matches an object of {missing}: give other '
            '--frames or --classes.'
        )
    return [rows[name] for name in classes]


def main(argv: Sequence[str] | None = None) -> None:
    """Explains, draws, writes."""
    log_to_stderr()
    try:
        args = parse_args(argv)
        torch.set_num_threads(args.threads)
        wanted, args.frames = args.frames, None
        plan = plan_of(args, targets=[args.target])
        with host_of(args.config).opened(plan, args.out.parent) as benchmark:
            rows = rows_of(benchmark, indices_of(benchmark, wanted), args.classes)
        figure = method_panel(rows, args.target, columns=args.columns, style=args.style)
        save_figure(figure, args.out)
    except (Explain3DError, OSError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from error
    print(f'Written to {args.out}')


if __name__ == '__main__':
    main()
