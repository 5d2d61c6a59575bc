#!/usr/bin/env python
"""Fits OccAM's density of sampling to a data set, and writes the fragment for a configuration.

    tools/fit_occam_density.py configs/benchmark/benchmark_second_miniworld.py --frames 8
    tools/fit_occam_density.py CONFIG.yaml [--pcdet CHECKOUT]       # of OpenPCDet

The nearer a voxel, the more points are in it. The probability that it is kept is fitted, as a
polynomial of the distance, so that a voxel keeps as many points on average at any distance: so
many that it is kept with the probability --keep at --at metres, which is the authors' choice, or
--target points. With many the detector finds nearly everything in every sub-cloud, and these say
little.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from explain3d.adapters.common.benchmark_command import host_of, is_yaml
from explain3d.core.errors import Explain3DError, InputError
from explain3d.core.results_atomic import atomic_write
from explain3d.methods.occam_sampling import VoxelSampling, fit_density, voxel_counts

#: Rings of the printed table, metres.
RING = 5


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='its test data set gives the frames')
    parser.add_argument('--frames', type=int, help='the first so many; default all')
    parser.add_argument('--voxel-size', type=float, default=0.2, help='metres')
    parser.add_argument('--keep', type=float, default=0.15, help='probability at --at')
    parser.add_argument('--at', type=float, default=25.0, help='metres')
    parser.add_argument('--target', type=float, help='points that a voxel keeps, in place of it')
    parser.add_argument('--degree', type=int, default=2, help='of the polynomial')
    parser.add_argument('--bounds', type=float, nargs=2, default=[0.02, 0.95])
    parser.add_argument('--out', type=Path, help='also write the fragment there')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='as in tools/test.py')
    parser.add_argument('--pcdet', help='checkout of OpenPCDet; default: environment PCDET_ROOT')
    args = parser.parse_args(argv)
    if not 0 < args.keep <= 1 or (args.target is not None and args.target <= 0):
        parser.error('expected --keep above 0 and at most 1, --target above 0')
    if args.degree < 0 or (args.frames is not None and args.frames < 1):
        parser.error('expected --degree of at least 0, --frames of at least 1')
    return args


def target_of(distance: np.ndarray, counts: np.ndarray, args: argparse.Namespace) -> float:
    """Returns how many points of a voxel are to be kept on average.

    Raises:
        InputError: If there is no voxel around ``args.at``.
    """
    if args.target is not None:
        return args.target
    near = np.abs(distance - args.at) < RING / 2
    if not near.any():
        raise InputError(
            f'Expected voxels within {RING / 2:g} m of --at {args.at:g} m, received none: give '
            'another distance, or --target.'
        )
    return args.keep * float(counts[near].mean())


def clouds(args: argparse.Namespace) -> list[np.ndarray]:
    """Returns the (N, >= 3) points of each frame as the detector gets them."""
    if args.pcdet:
        os.environ['PCDET_ROOT'] = args.pcdet
    host = host_of(args.config)
    return host.clouds(args.config, host.options_of(args.cfg_options), args.frames)


def rounded(density: Sequence[float], reach: float) -> list[float]:
    """Returns coefficients with as few digits as keep p within 0.001 up to a distance (metres)."""
    distance = np.linspace(0, reach, 200)
    for digits in range(3, 18):
        short = [float(f'{value:.{digits}g}') for value in density]
        if np.abs(np.polynomial.Polynomial(np.subtract(short, density))(distance)).max() < 1e-3:
            break
    return short


def yaml_fragment(density: Sequence[float], args: argparse.Namespace) -> str:
    """Returns the section ``BENCHMARK`` with the fitted method."""
    import yaml

    method = {'TYPE': 'OccAM', 'DENSITY': [float(value) for value in density]}
    method |= {'VOXEL_SIZE': args.voxel_size, 'BOUNDS': list(args.bounds)}
    return yaml.safe_dump({'BENCHMARK': {'METHODS': {'OccAM': method}}}, sort_keys=False)


def fragment(density: Sequence[float], args: argparse.Namespace, command: str, what: str) -> str:
    """Returns the text for a configuration that inherits the benchmark: Python, or YAML."""
    if is_yaml(args.config):
        return f'# {command}\n# {what}\n{yaml_fragment(density, args)}'
    digits = ', '.join(
        f'{value:g}' if value == float(f'{value:g}') else repr(value) for value in density
    )
    bounds = ', '.join(f'{value:g}' for value in args.bounds)
    return (
        f'# {command}\n# {what}\n'
        "benchmark = dict(methods={'OccAM': dict(\n"
        f'    density=[{digits}], voxel_size={args.voxel_size:g}, bounds=[{bounds}])}})\n'
    )


def table(
    distance: np.ndarray, counts: np.ndarray, sampling: VoxelSampling, target: float
) -> list[str]:
    """Returns lines: distance, points in a voxel, and the probability wanted and fitted."""
    lines = ['distance  points/voxel  wanted p  fitted p']
    for start in range(0, int(distance.max()) + 1, RING):
        here = (distance >= start) & (distance < start + RING)
        if not here.any():
            continue
        mean = counts[here].mean()
        middle = torch.tensor([[float(distance[here].mean()), 0.0, 0.0]])
        fitted = float(sampling.probability(middle)[0])
        wanted = float(np.clip(target / mean, *sampling.bounds))
        lines.append(f'{start:3d} to {start + RING:3d}  {mean:12.2f}  {wanted:8.3f}  {fitted:8.3f}')
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Fits, prints, writes."""
    args = parse_args(argv)
    try:
        VoxelSampling(args.voxel_size, bounds=tuple(args.bounds))  # Refuses what it cannot use.
        frames = clouds(args)
        found = [voxel_counts(cloud, args.voxel_size) for cloud in frames if len(cloud)]
        if not found:
            raise InputError(f'{args.config}: expected frames with points, received none.')
        distance, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
        target = target_of(distance, counts, args)
        density = fit_density(distance, counts, target, args.degree, tuple(args.bounds))
        density = tuple(rounded(density, float(distance.max())))
        sampling = VoxelSampling(args.voxel_size, density, tuple(args.bounds))
    except (Explain3DError, OSError) as error:
        raise SystemExit(f'{type(error).__name__}: {error}') from error
    print('\n'.join(table(distance, counts, sampling, target)))
    kept = float(sampling.probability(torch.from_numpy(np.concatenate(frames)[:, :3])).mean())
    what = f'{len(found)} frames, {len(distance)} voxels; {kept:.0%} of the points are kept.'
    command = shlex.join(['tools/fit_occam_density.py', *(argv or sys.argv[1:])])
    text = fragment(density, args, command, what)
    print(f'\n{text}', end='')
    if args.out is not None:
        with atomic_write(args.out, 'the configuration') as file:
            file.write(text.encode())


if __name__ == '__main__':
    main()
