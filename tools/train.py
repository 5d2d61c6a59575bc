#!/usr/bin/env python
"""Trains a detector from a config; spconv has gradients on a CPU too."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from explain3d.adapters.mmdet3d.cpu_processes import leave_processes, use_gloo_without_cuda


def parse_args() -> argparse.Namespace:
    """Returns the command line's options: those of MMMDetection3D's tools/train.py."""
    parser = argparse.ArgumentParser(description='Train a 3D detector.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--sync_bn', choices=['none', 'torch', 'mmcv'], default='none')
    parser.add_argument('--auto-scale-lr', action='store_true')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='a checkpoint to go on from; without a value, the latest in the work folder',
    )
    parser.add_argument('--ceph', action='store_true', help='read data through ceph')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--threads', type=int, help='threads of torch in each process')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def build_config(args: argparse.Namespace) -> Config:
    """Returns the config with the command line's options merged into it."""
    config = Config.fromfile(args.config)
    if args.ceph:
        from mmdet3d.utils import replace_ceph_backend

        config = replace_ceph_backend(config)
    config.launcher = args.launcher
    if args.cfg_options:
        config.merge_from_dict(args.cfg_options)
    if args.work_dir or not config.get('work_dir'):
        config.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
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


def main() -> None:
    """Trains."""
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    config = build_config(args)
    use_gloo_without_cuda(config)
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    runner.train()
    leave_processes()


if __name__ == '__main__':
    main()
