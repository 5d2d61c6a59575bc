"""What does the factorisation of a layer cost next to torchnmf and scikit-learn?

Features of a trained SECOND at stride 4 (64 channels) on point clouds. In turn, in one run, for
each rank and cloud: torchnmf as it is by default (Kullback-Leibler) and with the Frobenius norm,
scikit-learn's coordinate descent as it is by default, ours as it is by default, and ours for as
many iterations as it takes to a reconstruction error |F - H W| / |F| that is no higher than a
peer's. The objective has many minima, and one cloud only tells which of them a solver happens to
meet: give several. Then frames after the first: from scratch, from the first frame's dictionary to
the same error, and with that dictionary fixed, which is FFAM's ``warm_start``. At a rank of the
number of channels H = F, W = I is exact.

Everything runs with one thread. The peers come from PyPI: ``pip install torchnmf scikit-learn``.

    .venv/bin/python benchmarks/nmf.py CLOUD.bin [CLOUD.bin ...]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectors_on_cpu import batch_of
from mmdet3d.apis import init_model
from mmengine.registry import init_default_scope
from side_by_side import Claim, Ratio, Turns, arguments, report
from torch import Tensor

from explain3d.core.capture import leaf_at
from explain3d.core.nmf import factorize
from explain3d.locations import config_path

CONFIG = 'ffam/ffam_second_kitti-mini.py'
LAYER = 'middle_encoder.encoder_layers.encoder_layer3'
PEERS = ('torchnmf', 'torchnmf, Frobenius', "scikit-learn, 'cd'")
#: Iterations within which an error is looked for.
MOST = 400

#: Returns (M, r) and (r, C) factors.
Solver = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__)
    parser.add_argument('clouds', nargs='+', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('--config', default=CONFIG, help='a configuration with load_from')
    parser.add_argument('--checkpoint')
    parser.add_argument('--layer', default=LAYER)
    parser.add_argument('--slow-runs', type=int, help='rounds of torchnmf by default, if fewer')
    parser.add_argument('--peers', nargs='+', choices=PEERS, default=PEERS)
    parser.add_argument('--ranks', type=int, nargs='+', default=[16, 32, 64])
    return parser.parse_args()


@torch.no_grad()
def features_of(args: argparse.Namespace) -> list[Tensor]:
    """Returns (M, C) features of each cloud."""
    init_default_scope('mmdet3d')
    config = str(config_path(args.config))
    model = init_model(config, args.checkpoint or _weights(config), device=args.device)
    found = []
    for path in args.clouds:
        cloud = np.fromfile(path, np.float32).reshape(-1, 4)
        data = model.data_preprocessor(batch_of(cloud, 4, model), False)
        with leaf_at(model.get_submodule(args.layer)) as leaf:
            model.extract_feat(data['inputs'])
        found.append(leaf.tensor.detach().clone())
    return found


def _weights(config: str) -> str:
    from mmengine.config import Config

    return Config.fromfile(config).load_from


def by_torchnmf(features: Tensor, rank: int, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns the factors of torchnmf with its defaults."""
    from torchnmf.nmf import NMF

    torch.manual_seed(0)
    model = NMF(tuple(features.shape), rank=rank).to(features)
    model.fit(features, beta=beta)
    return model.H.detach(), model.W.detach().T


def by_scikit_learn(features: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns the factors of scikit-learn's coordinate descent with its defaults."""
    from sklearn.decomposition import NMF

    model = NMF(n_components=rank, solver='cd', random_state=0)
    weights = model.fit_transform(features.numpy())
    return torch.from_numpy(weights), torch.from_numpy(model.components_)


def by_us(
    features: Tensor, rank: int, init: str = 'coarse', **options: Any
) -> tuple[Tensor, Tensor]:
    """Returns our factors, by FFAM's defaults."""
    found = factorize(features, rank, init=init, **options)
    return found.H, found.W


def error_of(features: Tensor, factors: tuple[Tensor, Tensor]) -> float:
    """Returns |F - H W| / |F|, in float64."""
    H, W = (factor.double() for factor in factors)
    wide = features.double()
    return float((wide - H @ W).norm() / wide.norm())


def iterations_to(features: Tensor, rank: int, error: float, **options: Any) -> int | None:
    """Returns how many iterations take us to an error, None if ``MOST`` do not."""

    def reached(count: int) -> bool:
        found = by_us(features, rank, max_iter=count, tol=0, **options)
        return error_of(features, found) <= error

    low, high = 0, 1
    while not reached(high):
        low, high = high, high * 2
        if low >= MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def solvers_for(features: Tensor, rank: int, names: Sequence[str]) -> dict[str, Solver]:
    """Returns the sides by name."""
    peers: dict[str, Solver] = dict(
        zip(PEERS, (by_torchnmf, partial(by_torchnmf, beta=2.0), by_scikit_learn), strict=True)
    )
    peers = {name: peers[name] for name in names}
    errors = {name: error_of(features, solve(features, rank)) for name, solve in peers.items()}
    sides = {**peers, 'ours': by_us, 'ours, NNDSVD alone': partial(by_us, init='nndsvd')}
    for name, error in errors.items():
        count = iterations_to(features, rank, error)
        if count is not None:
            sides[f'ours, to the error of {name}'] = partial(by_us, max_iter=count, tol=0)
    return sides


def measure(features: Tensor, rank: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measures and prints one frame at one rank."""
    sides = solvers_for(features, rank, args.peers)
    slow_runs = args.runs if args.slow_runs is None else args.slow_runs
    turns, errors = Turns(args.device), {}
    for run in range(args.runs + 1):
        for name, solve in sides.items():
            if name == PEERS[0] and run > slow_runs:
                continue
            factors = turns.take(name, partial(solve, features, rank))
            errors[name] = error_of(features, factors)
        if run == 0:
            turns.forget()
    print(f'rank {rank}, {tuple(features.shape)}, {slow_runs} rounds of {PEERS[0]}')
    for name in sides:
        options = getattr(sides[name], 'keywords', {})
        count = f', {options["max_iter"]} iterations' if 'max_iter' in options else ''
        print(f'  {name:42s} {turns.median(name):8.3f} s  error {errors[name]:.4f}{count}')
    gains: dict[str, Ratio] = {}
    for name in args.peers:
        ours = f'ours, to the error of {name}'
        if ours in sides:
            gains[name] = turns.ratio(name, ours)
            print(f'  {name} takes {gains[name]} times as long to its error', flush=True)
        else:
            print(f'  the error of {name} is not reached within {MOST} iterations', flush=True)
        print(f'  {name} takes {turns.ratio(name, "ours")} times as long as ours by default')
    return {'rank': rank, 'shape': list(features.shape), 'errors': errors, 'gains': gains,
            'seconds': turns.seconds}  # fmt: skip


def claims_of(results: Sequence[dict[str, Any]], rank: int, peer: str) -> list[Claim]:
    """Returns the lines of the table about a peer at a rank, over all frames."""
    frames = [found for found in results if found['rank'] == rank]
    above = [
        100 * (f['errors']['ours'] / f['errors'][peer] - 1) for f in frames if f['errors'][peer]
    ]
    claims = []
    for ours in ('ours', f'ours, to the error of {peer}'):
        pairs = [
            pair
            for found in frames
            if ours in found['seconds']
            for pair in zip(found['seconds'][peer], found['seconds'][ours], strict=False)
        ]
        if not pairs:
            continue
        reached = sum(ours in found['seconds'] for found in frames)
        what = 'ours by default' if ours == 'ours' else 'ours to its error'
        claims.append(
            Claim(f'{peer} / {what}, rank {rank}, {reached} of {len(frames)} frames', 'at least 5',
                  Ratio.of(*zip(*pairs, strict=True)))
        )  # fmt: skip
    if above:
        spread = f'{np.mean(above):+.2f} % ({min(above):+.2f} to {max(above):+.2f})'
        claims.append(Claim(f'our error above that of {peer}, rank {rank}', 'at most 0', spread))
    return claims


def measure_sequence(
    frames: Sequence[Tensor], rank: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Measures and prints the frames after the first, with its dictionary and without."""
    W = factorize(frames[0], rank).W
    turns, errors = Turns(args.device), {}
    for run in range(args.runs + 1):
        frame = frames[1 + run % (len(frames) - 1)]
        cold = turns.take('from scratch', partial(by_us, frame, rank))
        aim = error_of(frame, cold)
        count = iterations_to(frame, rank, aim, W=W) or MOST
        factors = {
            'from scratch': cold,
            'to its error, from the dictionary': turns.take(
                'to its error, from the dictionary',
                partial(by_us, frame, rank, W=W, max_iter=count, tol=0),
            ),
            'dictionary fixed': turns.take(
                'dictionary fixed', partial(by_us, frame, rank, W=W, fixed=True)
            ),
        }
        for name, found in factors.items():
            errors.setdefault(name, []).append(error_of(frame, found))
        if run == 0:
            turns.forget()
            errors = {name: [] for name in errors}
    print(f'rank {rank}, frames after the first')
    for name, values in errors.items():
        print(
            f'  {name:42s} {turns.median(name):8.3f} s  error {np.median(values):.4f}  '
            f'{turns.ratio(name, "from scratch")} of it'
        )
    gains = {name: turns.ratio(name, 'from scratch') for name in errors}
    return {'rank': rank, 'errors': errors, 'of scratch': gains, 'seconds': turns.seconds}


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    frames = features_of(args)
    peers = {n: importlib.metadata.version(n) for n in ('torchnmf', 'scikit-learn')}
    print(f'{args.config}, {args.layer}, {args.runs} rounds')
    print(', '.join(f'{name} {version}' for name, version in peers.items()))
    results = [measure(frame, rank, args) for rank in args.ranks for frame in frames]
    sequences = [measure_sequence(frames, r, args) for r in args.ranks] if len(frames) > 1 else []
    claims = [
        claim
        for rank in args.ranks
        for peer in args.peers
        for claim in claims_of(results, rank, peer)
    ]
    claims += [
        Claim(f'{name} / from scratch, rank {found["rank"]}', 'below 1', ratio)
        for found in sequences
        for name, ratio in found['of scratch'].items()
        if name != 'from scratch'
    ]
    report(args, claims, {'peers': peers, 'frames': results, 'sequences': sequences})


if __name__ == '__main__':
    main()
