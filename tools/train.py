#!/usr/bin/env python
"""Trains a model from a config, with MMDetection3D's options; sparse layers on a CPU too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from mmengine.config import Config

from explain3d.adapters.mmdet3d.checkpoint_compat import ignore_stored_configuration
from explain3d.adapters.mmdet3d.command_line import build_runner, common_parser, parse, read_config
from explain3d.adapters.mmdet3d.cpu_processes import leave_processes


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = common_parser('Trains a 3D model.')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--sync_bn', choices=['none', 'torch', 'mmcv'], default='none')
    parser.add_argument('--auto-scale-lr', action='store_true')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='a checkpoint to go on from; without a value, the latest in the work folder',
    )
    parser.add_argument('--threads', type=int, help='threads of torch in each process')
    return parse(parser, argv)


def build_config(args: argparse.Namespace) -> Config:
    """Returns the configuration with the command line's options in it."""
    config = read_config(args)
    if args.amp:
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'
    if args.sync_bn != 'none':
        config.sync_bn = args.sync_bn
    if args.auto_scale_lr:
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Trains."""
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    runner = build_runner(build_config(args))
    ignore_stored_configuration(runner)
    runner.train()
    leave_processes()


if __name__ == '__main__':
    main()
