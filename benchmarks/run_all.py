"""Runs the benchmarks one after the other and makes the table that README quotes.

Each runs in a process of its own; its figures are saved as ``NAME.json`` and what it prints as
``NAME.log``. The table is printed and saved as ``table.md``. A benchmark that fails is a line of
the table, and the exit code.

    .venv/bin/python benchmarks/run_all.py --out outputs/benchmarks [--quick] [--only nmf lmd]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Run:
    """How a script is run.

    Attributes:
        script: In this folder.
        args: Its arguments.
        quick: More, with which it takes a minute or so: to see that it runs, not for figures.
        clouds: How many point clouds it takes, before its arguments; -1: all.
        plots: Whether it draws; the picture is saved as ``NAME.png``.
    """

    script: str
    args: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    clouds: int = 0
    plots: bool = False


RUNS = {
    'gradients': Run(
        'gradients_windowed.py',
        quick=('--runs', '1', '--slow-runs', '0', '--detections', '3'),
        clouds=1,
    ),
    'nmf': Run('nmf.py', quick=('--runs', '1', '--ranks', '16'), clouds=-1),
    'upsampling': Run('upsampling.py', quick=('--runs', '1'), clouds=1),
    'explanation': Run(
        'explain_vs_inference.py',
        ('configs/ffam/ffam_second_miniworld.py',),
        ('--frames', '1', '--top-n', '5'),
    ),
    'deletion': Run(
        'deletion_batched.py',
        ('configs/benchmark/benchmark_second_miniworld.py', '--one-pass-steps', '4'),
        ('--frames', '1', '--one-pass-steps', '1', '--sides', 'windows'),
    ),
    'occam': Run(
        'occam_batching.py',
        ('configs/benchmark/benchmark_second_miniworld.py', '--radius', '4'),
        ('--frames', '1', '--samples', '4', '--detections', '2'),
    ),
    'scale': Run(
        'scale.py',
        quick=('--runs', '1', '--detections', '1', '3', '--points', '--modalities'),
        clouds=1,
        plots=True,
    ),
    'soak': Run('soak.py', ('configs/ffam/ffam_second_miniworld.py',), ('--frames', '5')),
    'lmd': Run(
        'lmd_cost.py', quick=('--runs', '1', '--depth', '18', '--modalities', '2', '--no-memory')
    ),
}
CLOUDS = [Path(f'data/mini_kitti/training/velodyne/{n:06d}.bin') for n in (200, 201, 202)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('outputs/benchmarks'))
    parser.add_argument('--quick', action='store_true', help='see that all run; no figures')
    parser.add_argument('--only', nargs='+', choices=RUNS, default=list(RUNS))
    parser.add_argument('--clouds', nargs='+', type=Path, default=CLOUDS)
    parser.add_argument('--device', help="default: each script's own")
    return parser.parse_args(argv)


def command(run: Run, args: argparse.Namespace, target: Path) -> list[str]:
    """Returns the command of a run."""
    clouds = args.clouds if run.clouds < 0 else args.clouds[: run.clouds]
    found = [sys.executable, str(HERE / run.script), *map(str, clouds), *run.args]
    found += run.quick if args.quick else ()
    found += ['--device', args.device] if args.device else []
    found += ['--plot', str(target.with_suffix('.png'))] if run.plots else []
    return [*found, '--json', str(target)]


def execute(name: str, args: argparse.Namespace) -> list[dict[str, str]]:
    """Runs a benchmark and returns its lines of the table."""
    target, log = args.out / f'{name}.json', args.out / f'{name}.log'
    target.unlink(missing_ok=True)
    print(f'{name}: {RUNS[name].script} ...', flush=True)
    with log.open('w') as file:
        done = subprocess.run(
            command(RUNS[name], args, target), stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode or not target.exists():
        return [dict(what=f'{name} failed', aim='', found=f'see {log}', failed='yes')]
    return json.loads(target.read_text())['claims']


def table(rows: dict[str, list[dict[str, str]]]) -> str:
    """Returns the lines of all benchmarks as Markdown."""
    lines = ['| what | aim | measured (smallest to largest) | script |', '|---|---|---|---|']
    for name, claims in rows.items():
        script = f'`benchmarks/{RUNS[name].script}`'
        lines += [f'| {c["what"]} | {c["aim"]} | {c["found"]} | {script} |' for c in claims]
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> int:
    """Runs them; returns the exit code."""
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {name: execute(name, args) for name in args.only}
    text = table(rows)
    (args.out / 'table.md').write_text(text)
    print(text)
    return int(any('failed' in claim for claims in rows.values() for claim in claims))


if __name__ == '__main__':
    sys.exit(main())
