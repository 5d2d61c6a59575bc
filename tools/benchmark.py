"""Measures explanation methods on a detector: methods x metrics, with intervals.

    tools/benchmark.py configs/benchmark/benchmark_second_miniworld.py --frames 10
    tools/benchmark.py CONFIG CHECKPOINT --methods FFAM "FFAM(rank=32)" ODAM --metrics vea pg \
        --workers 4 --out-dir work_dirs/benchmark

Writes records.json, table.csv, table.json, table.md, table.tex and curves.png into the folder. A
run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from explain3d.adapters.mmdet3d.benchmark import (
    ALL_METRICS,
    BenchmarkPlan,
    FrameBenchmark,
    collect,
    plan_digest,
    run_share,
)
from explain3d.metrics.saliency_report import csv_text, differences_markdown, latex, markdown
from explain3d.metrics.saliency_table import differences, save_records, table_of
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
    parser.add_argument('--frames', type=int, help='the first so many of the test set')
    parser.add_argument('--reference', help='method that the others are compared with')
    parser.add_argument('--workers', type=int, default=1, help='processes')
    parser.add_argument('--threads', type=int, default=1, help='of each process')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--batch-size', type=int, default=4, help='clouds at a time')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    return parser.parse_args(argv)


def method_of(text: str) -> dict[str, Any]:
    """Returns the configuration that ``Name`` or ``Name(option=value)`` stands for."""
    call = ast.parse(text, mode='eval').body
    if isinstance(call, ast.Name):
        return dict(type=call.id)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise SystemExit(f'{text!r}: expected a method as Name or "Name(option=value, ...)".')
    return dict(type=call.func.id, **{k.arg: ast.literal_eval(k.value) for k in call.keywords})


def plan_of(args: argparse.Namespace) -> BenchmarkPlan:
    """Returns the plan of a command line; what it leaves out comes from the configuration."""
    settings = Config.fromfile(args.config).get('benchmark') or {}
    settings = settings.to_dict() if hasattr(settings, 'to_dict') else dict(settings)
    methods = settings.pop('methods', {})
    if args.methods:
        methods = {text: methods.get(text) or method_of(text) for text in args.methods}
    if not methods:
        raise SystemExit('No methods: give --methods, or benchmark.methods in the configuration.')
    given = dict(targets=args.targets, metrics=args.metrics, frames=args.frames)
    settings |= {key: value for key, value in given.items() if value is not None}
    return BenchmarkPlan(
        args.config, args.checkpoint, methods, device=args.device, batch_size=args.batch_size,
        **settings,
    )  # fmt: skip


def run(plan: BenchmarkPlan, folder: str, workers: int, threads: int) -> None:
    """Runs all frames, in several processes if asked for."""
    if workers == 1:
        run_share(plan, folder, 0, 1, threads)
        return
    context = multiprocessing.get_context('spawn')
    processes = [
        context.Process(target=run_share, args=(plan, folder, rank, workers, threads))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [p.exitcode for p in processes if p.exitcode]
    if failed:
        raise SystemExit(f'{len(failed)} of {workers} processes failed: see above, and run again.')


def report(plan: BenchmarkPlan, records: list, folder: Path, reference: str | None) -> str:
    """Writes all files; returns the Markdown."""
    table = table_of(records)
    text = markdown(table)
    rows = [row for row in table.rows if row[0] == (reference or table.rows[0][0])]
    if len(table.rows) > 1 and rows:
        text += '\n\n' + differences_markdown(differences(records, rows[0]), rows[0])
    save_records(records, folder / 'records.json')
    (folder / 'plan.json').write_text(plan_digest(plan) + '\n')
    (folder / 'table.md').write_text(text + '\n')
    (folder / 'table.tex').write_text(latex(table))
    (folder / 'table.csv').write_text(csv_text(table))
    content = {'protocol': table.protocol.as_dict(), 'cells': table.as_rows()}
    (folder / 'table.json').write_text(json.dumps(content, indent=2) + '\n')
    if any(record.curves for record in records):
        save_figure(curve_figure(records), folder / 'curves.png')
    return text


def main(argv: Sequence[str] | None = None) -> None:
    """Runs, writes, prints."""
    args = parse_args(argv)
    plan = plan_of(args)
    frames = args.out_dir / 'frames'
    run(plan, str(frames), args.workers, args.threads)
    records = collect(FrameBenchmark(plan, frames))
    if not records:
        raise SystemExit('No detection matched an object in these frames: there is no table.')
    print(report(plan, records, args.out_dir, args.reference))
    print(f'\nWritten to {args.out_dir}')


if __name__ == '__main__':
    main()
