"""Measures explanation methods on a detector: methods x metrics, with intervals.

    tools/benchmark.py configs/benchmark/benchmark_second_miniworld.py --frames 10
    tools/benchmark.py CONFIG CHECKPOINT --methods FFAM "FFAM(rank=32)" ODAM --metrics vea pg \
        --workers 4 --out-dir work_dirs/benchmark

Writes records.json, table.csv, table.json, table.md, by_class.md, table.tex and curves.png into
the folder. A run that was stopped goes on where it stopped; what is there of a method is not
measured again.
"""

from __future__ import annotations

import argparse
import ast
import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction

from explain3d.adapters.mmdet3d.benchmark import (
    ALL_METRICS,
    BenchmarkPlan,
    FrameBenchmark,
    run_frames,
    run_share,
)
from explain3d.core.errors import Explain3DError, UnknownNameError
from explain3d.core.results_atomic import atomic_write
from explain3d.methods import EXPLAINERS
from explain3d.metrics.saliency_report import (
    by_class_markdown,
    csv_text,
    differences_markdown,
    json_text,
    latex,
    markdown,
)
from explain3d.metrics.saliency_table import Table, differences, save_records, table_of
from explain3d.visualization.curves import curve_figure
from explain3d.visualization.style import save_figure


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'config', help='configuration of the detector; its "benchmark" has defaults'
    )
    parser.add_argument('checkpoint', nargs='?', help="default: the configuration's load_from")
    parser.add_argument('--methods', nargs='+', help='names, or "Name(option=value, ...)"')
    parser.add_argument('--targets', nargs='+')
    parser.add_argument('--metrics', nargs='+', choices=ALL_METRICS, metavar='METRIC')
    parser.add_argument('--frames', type=_positive, help='the first so many of the test set')
    parser.add_argument('--reference', help='method that the others are compared with')
    parser.add_argument('--workers', type=_positive, default=1, help='processes')
    parser.add_argument('--threads', type=_positive, default=1, help='of each process')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=_positive, default=4, help='clouds at a time')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={},
        help='entries of the configuration to replace, as in tools/test.py',
    )  # fmt: skip
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, got {text!r}')
    return int(text)


def method_of(text: str, known: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the configuration that ``Name`` or ``Name(option=value)`` stands for.

    Args:
        text: What the user wrote.
        known: Names in the configuration, for the message.

    Raises:
        UnknownNameError: If it is neither, or there is no such method.
    """
    try:
        call = ast.parse(text.strip(), mode='eval').body
        name = call.func if isinstance(call, ast.Call) and not call.args else call
        options = call.keywords if isinstance(call, ast.Call) else []
        method = dict(type=name.id, **{k.arg: ast.literal_eval(k.value) for k in options})
    except (SyntaxError, ValueError, AttributeError, TypeError):
        method = {}
    if method.get('type') not in EXPLAINERS:
        raise UnknownNameError(
            f'Unknown method {text!r}: expected one of the configuration ({list(known)}), or '
            f'Name or "Name(option=value, ...)" with one of {list(EXPLAINERS)}.'
        )
    return method


def plan_of(args: argparse.Namespace) -> BenchmarkPlan:
    """Returns the plan of a command line; what it leaves out comes from the configuration."""
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    settings = config.get('benchmark') or {}
    settings = settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)
    methods = settings.get('methods', {})
    if args.methods:
        methods = {t: methods.get(t) or method_of(t, list(methods)) for t in args.methods}
    return BenchmarkPlan.of(
        settings, config=args.config, checkpoint=args.checkpoint, methods=methods,
        targets=args.targets, metrics=args.metrics, frames=args.frames, device=args.device,
        batch_size=args.batch_size, reference=_reference(args, settings, methods),
        options=args.cfg_options,
    )  # fmt: skip


def _reference(
    args: argparse.Namespace, settings: dict[str, Any], methods: dict[str, Any]
) -> str | None:
    """Returns the reference; the configuration's counts where it is one of the methods."""
    known = settings.pop('reference', None)
    return args.reference or (known if known in methods else None)


def run(benchmark: FrameBenchmark, workers: int, threads: int) -> None:
    """Runs what is missing, in several processes if asked for."""
    plan, folder, pending = benchmark.plan, str(benchmark.folder), benchmark.pending()
    print(f'{len(benchmark.indices())} frames, {len(pending)} of them to run.', flush=True)
    workers = min(workers, len(pending))
    if workers <= 1:
        torch.set_num_threads(threads)
        run_frames(benchmark, pending)
        return
    context = multiprocessing.get_context('spawn')
    processes = [
        context.Process(
            target=run_share, args=(plan, folder, pending[i::workers], i, threads), daemon=True
        )
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    ended = [process.exitcode for process in processes if process.exitcode]
    if ended:
        raise SystemExit(
            f'{len(ended)} of {workers} processes ended early (exit codes {ended}): see above. '
            'What was measured is kept; the same command goes on.'
        )


def report(plan: BenchmarkPlan, records: list, notes: Sequence[str], folder: Path) -> str:
    """Writes all files; returns the Markdown."""
    table = table_of(records)
    missing = ['', *(f'- {note}' for note in notes)] if notes else []
    text = '\n'.join([markdown(table), *_differences(table, records, plan.reference), *missing])
    save_records(records, folder / 'records.json')
    for name, content in {
        'plan.json': plan.as_json() + '\n',
        'table.md': text + '\n',
        'by_class.md': '\n'.join([by_class_markdown(table), *missing]) + '\n',
        'table.tex': latex(table),
        'table.csv': csv_text(table),
        'table.json': json_text(table),
    }.items():
        with atomic_write(folder / name, name) as file:
            file.write(content.encode())
    if any(record.curves for record in records):
        save_figure(curve_figure(records), folder / 'curves.png')
    return text


def _differences(table: Table, records: list, reference: str | None) -> list[str]:
    if len(table.rows) < 2:
        return []
    # A reference that failed everywhere has no figures.
    rows = [row for row in table.rows if row[0] == reference] or table.rows
    return ['', differences_markdown(differences(records, rows[0]), rows[0])]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs, writes, prints; the exit code is 1 where a method failed on a frame."""
    args = parse_args(argv)
    logging.basicConfig(format='%(message)s')
    logging.getLogger('explain3d').setLevel(logging.INFO)
    try:
        plan = plan_of(args)
        benchmark = FrameBenchmark(plan, args.out_dir / 'frames')
        run(benchmark, args.workers, args.threads)
        found = benchmark.collect()
        for note in found.notes:
            print(note)
        if not found.records:
            raise SystemExit('No detection matched an object in these frames: there is no table.')
        print(report(plan, found.records, found.notes, args.out_dir))
    except (Explain3DError, OSError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from error
    print(f'\nWritten to {args.out_dir}')
    if found.notes:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
