#!/usr/bin/env python
"""Which sensor made the boxes of a fusion detector? Runs its test set and writes the report.

    tools/sensor_report.py CONFIG CHECKPOINT --frames 100 --out-dir work_dirs/sensors

The detector proposes where its sensors meet (``lmd_seeds``), or the configuration's
``sensor_report`` says so: dict(seeds=[dict(module='fusion_layer', path='0.0', modality='camera'),
...]), and whatever else ``explain3d.SensorShareHook`` takes. Writes report.md, .csv, .json and .png
and one file a frame; a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config

from explain3d.adapters.mmdet3d.command_line import build_runner, common_parser, parse, read_config
from explain3d.adapters.mmdet3d.cpu_processes import leave_processes


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = common_parser(__doc__.splitlines()[0])
    parser.add_argument('checkpoint', nargs='?', help="default: the configuration's load_from")
    parser.add_argument('--frames', type=int, help='the first so many of the test set')
    parser.add_argument('--score-thr', type=float, help='least score of a box; default 0.2')
    parser.add_argument('--seeds', help="a word that the detector knows: 'sensors', 'cameras'")
    parser.add_argument(
        '--blank', nargs='*', metavar='SENSOR', help='sensors to blank; default all, none: no pass'
    )
    parser.add_argument(
        '--edges', nargs='+', type=float, default=[0, 20, 40], help='where ranges begin, metres'
    )
    parser.add_argument(
        '--tags', help='file of tags of frames and objects, as tools/make_tags.py makes it'
    )
    parser.add_argument('--pictures', action='store_true', help='draw each frame from above')
    parser.add_argument('--threads', type=int, help='threads of torch in each process')
    parser.add_argument('--out-dir', help='default: {work_dir}/sensor_report')
    return parse(parser, argv)


def build_config(args: argparse.Namespace) -> Config:
    """Returns the configuration with the hook and its evaluator in it."""
    config = read_config(args)
    config.load_from = args.checkpoint or config.get('load_from')
    folder = Path(args.out_dir or Path(config.work_dir) / 'sensor_report')
    given = dict(score_thr=args.score_thr, seeds=args.seeds, blank=args.blank)
    hook = dict(type='explain3d.SensorShareHook', **config.get('sensor_report', {}))
    hook |= {key: value for key, value in given.items() if value is not None}
    results = dict(dir=str(folder / 'frames'), pictures=args.pictures)
    hook['results'] = {**results, **hook.get('results', {}), 'dir': results['dir']}
    config.custom_hooks = [hook]
    config.test_evaluator = dict(
        type='explain3d.SensorShareMetric', edges=args.edges, tags=args.tags, dir=str(folder)
    )
    if args.frames is not None:
        config.test_dataloader.dataset.indices = args.frames
    return config


def main(argv: Sequence[str] | None = None) -> dict:
    """Runs, prints and writes; returns the figures."""
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = build_config(args)
    figures = build_runner(config).test()
    print(f'Written to {config.test_evaluator.dir}')
    leave_processes()
    return figures


if __name__ == '__main__':
    main()
