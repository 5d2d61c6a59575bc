"""Measures explanation methods on a detector: methods x metrics, with intervals.

    tools/benchmark.py configs/benchmark/benchmark_second_miniworld.py --frames 10
    tools/benchmark.py CONFIG CHECKPOINT --methods FFAM "FFAM(rank=32)" ODAM --metrics vea pg \
        --workers 4 --out-dir work_dirs/benchmark
    tools/benchmark.py CONFIG.yaml CHECKPOINT [--pcdet CHECKOUT]       # of OpenPCDet

Writes records.json, table.csv, table.json, table.md, by_class.md, table.tex and curves.png into
the folder. A run that was stopped goes on where it stopped; what is there of a method is not
measured again.
"""

from __future__ import annotations

import argparse
import multiprocessing
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
from explain3d.adapters.common.benchmark_plan import ALL_METRICS, BenchmarkPlan
from explain3d.adapters.common.benchmark_run import log_to_stderr, run_frames
from explain3d.core.errors import Explain3DError
from explain3d.core.results_atomic import atomic_write
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
    add_arguments(parser)
    parser.add_argument('--targets', nargs='+')
    parser.add_argument('--metrics', nargs='+', choices=ALL_METRICS, metavar='METRIC')
    parser.add_argument('--frames', type=positive, help='the first so many of the test set')
    parser.add_argument('--reference', help='method that the others are compared with')
    parser.add_argument('--workers', type=positive, default=1, help='processes')
    parser.add_argument('--threads', type=positive, default=1, help='of each process')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    return parsed(parser, argv)


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
            target=host_of(plan.config).run_share,
            args=(plan, folder, pending[i::workers], i, threads),
            daemon=True,
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
    log_to_stderr()
    try:
        args = parse_args(argv)
        plan = plan_of(args)
        with host_of(args.config).opened(plan, args.out_dir / 'frames') as benchmark:
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
