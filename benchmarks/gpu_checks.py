"""Does everything run, and give the same, on this GPU? A table of checks, in eight minutes.

    .venv/bin/python benchmarks/gpu_checks.py --out outputs/gpu_checks.md
    .venv/bin/python benchmarks/gpu_checks.py --device cpu       # a dry run: do the checks run?

Small random networks; nothing is downloaded. Without a GPU nothing is checked, and the exit code is
2. It is 1 where a check fails. On a CPU, checks that need a GPU are left out and say so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from gpu_subjects import (
    ROOT,
    SEEDS,
    chance,
    decomposed,
    explained,
    features,
    flat,
    fusion,
    leaves,
    moved,
    scene,
    sensors,
    tiny,
)
from torch import nn

from explain3d.core.devices import use_device
from explain3d.core.nmf import factorize
from explain3d.core.nmf_coarse import coarse
from explain3d.core.nmf_updates import steps
from explain3d.core.precision import (
    deterministic_kernels,
    full_precision_kernels,
    kernel_settings,
)
from explain3d.core.transfer import to_cpu
from explain3d.core.upsampling import find_neighbours
from explain3d.lmd import Decomposition

METHODS = {
    'FFAM': dict(rank=8), 'GradCAM': {}, 'ODAM': {}, 'Contribution': {},
    'IntegratedGradients': dict(steps=4), 'OccAM': dict(samples=8, tolerance=None),
}  # fmt: skip
#: Largest difference of a map, whose values are in [0, 1], between a CPU and a GPU: rounding, where
#: the factorisation stops at 1e-4 of its objective.
CLOSE = 1e-2
#: What docs/lmd.md promises of float32.
RESIDUAL = 1e-5


@dataclass(frozen=True)
class Row:
    """A line of the table: passed (None: not checked), and a figure."""

    name: str
    passed: bool | None
    figure: str
    seconds: float = 0.0


#: A check, given the device: whether it is passed, and a figure.
Check = Callable[[torch.device], tuple[bool | None, str]]
CHECKS: dict[str, Check] = {}


def check(name: str, gpu: bool = False) -> Callable[[Check], Check]:
    """Registers a check; with ``gpu`` it is left out on a CPU."""

    def register(function: Check) -> Check:
        def run(device: torch.device) -> tuple[bool | None, str]:
            if gpu and device.type != 'cuda':
                return None, 'needs a GPU'
            return function(device)

        CHECKS[name] = run
        return function

    return register


@check('versions and flags')
def _versions(device: torch.device) -> tuple[bool, str]:
    cuda = device.type == 'cuda'
    name = torch.cuda.get_device_name(device) if cuda else 'cpu'
    known = f'torch {torch.__version__}, CUDA {torch.version.cuda}'
    cudnn = torch.backends.cudnn.version() if cuda else None
    outside = kernel_settings()
    with full_precision_kernels():
        inside = kernel_settings()
    return not inside[
        'tf32'
    ], f'{name}, {known}, cuDNN {cudnn}; TF32 {outside["tf32"]}, in ours ' + (f'{inside["tf32"]}')


@check('tests marked gpu', gpu=True)
def _tests(_device: torch.device) -> tuple[bool, str]:
    command = [sys.executable, '-m', 'pytest', '-q', '-m', 'gpu', 'tests']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    lines = done.stdout.strip().splitlines() or [done.stderr[-200:]]
    return done.returncode == 0, lines[-1]


@check('methods, CPU against device')
def _methods(device: torch.device) -> tuple[bool, str]:
    worst = {}
    for method, options in METHODS.items():
        one, other = (explained(d, dict(type=method, **options)) for d in ('cpu', device))
        worst[method] = float((one - other).abs().max())
    text = ', '.join(f'{name} {value:.1e}' for name, value in worst.items())
    return all(value <= CLOSE for value in worst.values()), f'largest differences: {text}'


@check('metrics, CPU against device')
def _metrics(device: torch.device) -> tuple[bool, str]:
    from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
    from explain3d.metrics.curves import perturbation_curves
    from explain3d.metrics.protocol import Protocol

    small, found = tiny(), []
    maps = torch.rand(1, 800, generator=chance())
    objects = torch.tensor([[5.0, 0, -0.8, 2, 2, 2, 0]])
    for where in ('cpu', device):
        box = MMDet3DBlackBox(small.build(small.pointpillars()).to(where))
        points = torch.as_tensor(small.cloud(0), device=where)
        curves = perturbation_curves(
            box, points, {'a': maps.to(where)}, objects.to(where), [0], Protocol(steps=4)
        )
        found.append(torch.cat([flat(value) for value in leaves(curves)]))
    worst = float((found[0] - found[1]).abs().max())
    return worst <= CLOSE, f'Deletion and Insertion differ by {worst:.1e}'


@check('LMD: residual, TF32 off and on')
def _residual(device: torch.device) -> tuple[bool, str]:
    ours = max(float(o.residual) for o in decomposed(device, 'check').outputs.values())
    layer, (a, b) = nn.Conv2d(32, 32, 3, padding=1, bias=False).to(device), sensors(device)
    sides = []
    for context in (full_precision_kernels, nullcontext):
        with torch.no_grad(), context():
            whole = layer(a + b)
            sides.append(float((layer(a) + layer(b) - whole).abs().max() / whole.abs().max()))
    text = f'{ours:.1e}; one convolution {sides[0]:.1e}, as the process is set {sides[1]:.1e}'
    return ours <= RESIDUAL and sides[0] <= RESIDUAL, text


@check('no waits in LMD and the factorisation', gpu=True)
def _no_waits(device: torch.device) -> tuple[bool, str]:
    decomposed(device, 'production')  # Once for what is made once.
    model, given = fusion(device), sensors(device)
    F = features(3000, device)[None]
    H, W = coarse(F, [3000], 8)
    update, _ = steps('frobenius', 'hals')
    with _waits_are_errors(), torch.no_grad():
        with Decomposition(model, SEEDS, ('',), mode='production'):
            model(*given)
        update(F, H, W)
    return True, 'none'


@check('same bits twice, deterministic')
def _same_bits(device: torch.device) -> tuple[bool, str]:
    equal = {}
    for strict in (False, True):
        with deterministic_kernels(strict):
            one, other = (explained(device, dict(type='FFAM', rank=8)) for _ in range(2))
            parts = [decomposed(device, 'production').outputs[''] for _ in range(2)]
        equal[strict] = torch.equal(one, other), torch.equal(parts[0]['a'], parts[1]['a'])
    return all(equal[True]), f'FFAM, LMD: {equal[True]}; without the mode {equal[False]}'


@check('neighbours, CPU against device')
def _neighbours(device: torch.device) -> tuple[bool, str]:
    points, layer = scene('cpu')
    one = find_neighbours(points, layer, mode='gaussian')
    other = find_neighbours(points.to(device), moved(layer, device), mode='gaussian')
    same = torch.equal(one.index, other.index.cpu())
    worst = float((one.weight - other.weight.cpu()).abs().max())
    return same and worst < 1e-9, f'same rows: {same}; weights differ by {worst:.1e}'


@check('factorisation, CPU against device')
def _factorisation(device: torch.device) -> tuple[bool, str]:
    F = features(4000, 'cpu')
    one, other = (factorize(F.to(d), 8, init='coarse') for d in ('cpu', device))
    worst = float((one.H @ one.W - (other.H @ other.W).cpu()).norm() / F.norm())
    text = f'|F - HW| {one.residual:.6f}, {other.residual:.6f}; products differ by {worst:.1e}'
    return abs(one.residual - other.residual) <= 1e-3, text


@check('LMD parts, CPU against device')
def _parts(device: torch.device) -> tuple[bool, str]:
    one, other = (decomposed(torch.device(d), 'check').outputs[''] for d in ('cpu', device))
    scale = one['a'].abs().max()
    worst = max(float((one[n] - other[n].cpu()).abs().max() / scale) for n in ('a', 'b', 'bias'))
    return worst <= 1e-4, f'largest relative difference {worst:.1e}'


@check('pinned transfer')
def _pinned(device: torch.device) -> tuple[bool, str]:
    values = [torch.full((1000, 1000), float(i), device=device) for i in range(4)]
    started = time.perf_counter()
    with to_cpu() as cpu:
        found = [cpu(value) for value in values]
    spent = time.perf_counter() - started
    right = all(bool((f == i).all()) for i, f in enumerate(found))
    pinned = device.type != 'cuda' or all(f.is_pinned() for f in found)
    return right and pinned, f'16 MB in {spent * 1e3:.1f} ms, pinned: {pinned}'


@check('peak memory', gpu=True)
def _memory(device: torch.device) -> tuple[bool, str]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    explained(device, dict(type='FFAM', rank=8))
    first = torch.cuda.max_memory_allocated(device)
    left = torch.cuda.memory_allocated(device)
    explained(device, dict(type='FFAM', rank=8))
    grown = torch.cuda.memory_allocated(device) - left
    return grown < 1 << 20, f'{first / 2**20:.0f} MiB; a further frame leaves {grown} bytes'


@check('autocast', gpu=True)
def _autocast(device: torch.device) -> tuple[bool, str]:
    plain = explained(device, dict(type='FFAM', rank=8))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = explained(device, dict(type='FFAM', rank=8))
    finite = bool(half.isfinite().all())
    return finite and half.dtype == plain.dtype, f'finite: {finite}, {half.dtype}'


@check('cost')
def _cost(device: torch.device) -> tuple[bool | None, str]:
    F, (points, layer) = features(12000, device), scene(device)
    model, given = fusion(device), sensors(device)

    def decompose() -> None:
        with torch.no_grad(), Decomposition(model, SEEDS, ('',), mode='production'):
            model(*given)

    def inference() -> None:
        with torch.no_grad():
            model(*given)

    found = {
        'factorisation': _seconds(lambda: factorize(F, 16, init='coarse'), device),
        'upsampling': _seconds(lambda: find_neighbours(points, layer), device),
        'LMD': _seconds(decompose, device),
        'inference': _seconds(inference, device),
    }
    return None, ', '.join(f'{name} {value * 1e3:.1f} ms' for name, value in found.items())


@contextmanager
def _waits_are_errors() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def _seconds(step: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    from explain3d.adapters.common.costs import timed

    step()
    return sorted(timed(step, device)[1] for _ in range(rounds))[rounds // 2]


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as Markdown."""
    word = {True: 'pass', False: 'FAIL', None: '-'}
    lines = ['| check | | figure | s |', '|---|---|---|---|']
    for row in rows:
        figure = row.figure.replace('|', '\\|').replace('\n', ' ')
        lines.append(f'| {row.name} | {word[row.passed]} | {figure} | {row.seconds:.1f} |')
    return '\n'.join(lines)


def run(names: Sequence[str], device: torch.device, budget: float) -> list[Row]:
    """Runs checks one after the other; an error is a check that failed.

    Args:
        names: Some of ``CHECKS``.
        device: Where.
        budget: Seconds after which no further check begins.
    """
    rows, begun = [], time.monotonic()
    for name in names:
        started = time.monotonic()
        if started - begun > budget:
            rows.append(Row(name, None, 'no time left'))
            continue
        try:
            passed, figure = CHECKS[name](device)
        except Exception as error:  # Whatever goes wrong on a GPU is what this is to find.
            traceback.print_exc()
            passed, figure = False, f'{type(error).__name__}: {str(error)[:200]}'
        rows.append(Row(name, passed, figure, time.monotonic() - started))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Checks, prints the table, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', help='default: the first GPU')
    parser.add_argument('--only', nargs='+', choices=CHECKS, metavar='CHECK', default=list(CHECKS))
    parser.add_argument(
        '--budget', type=float, default=420.0, help='seconds; no check begins later'
    )
    parser.add_argument('--out', type=Path, help='where to write the table')
    args = parser.parse_args(argv)
    if args.device is None and not torch.cuda.is_available():
        print('no GPU: nothing checked')
        return 2
    device = torch.device(args.device or 'cuda:0')
    use_device(device)
    warnings.simplefilter('ignore')
    rows = run(args.only, device, args.budget)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(table(rows) + '\n')
    failed = [row.name for row in rows if row.passed is False]
    print(f'{len(rows)} checks on {device}, failed: {failed or "none"}')
    return int(bool(failed))


if __name__ == '__main__':
    raise SystemExit(main())
