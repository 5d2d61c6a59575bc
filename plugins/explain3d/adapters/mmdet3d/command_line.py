"""What the command lines of testing and training share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .cpu_processes import use_gloo_without_cuda


def common_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options of every command of MMDetection3D."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='configuration file')
    parser.add_argument('--work-dir', help='folder of logs, metrics and checkpoints')
    parser.add_argument('--ceph', action='store_true', help='read data from Ceph')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='changes to the configuration, nested keys joined by dots',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes --local_rank up to torch 1, --local-rank from torch 2 on.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads a command line; the rank that a launcher passes goes into the environment."""
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def read_config(args: argparse.Namespace) -> Config:
    """Returns the configuration with the common options in it."""
    config = Config.fromfile(args.config)
    if args.ceph:
        from mmdet3d.utils import replace_ceph_backend

        config = replace_ceph_backend(config)
    config.launcher = args.launcher
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    by_name = str(Path('work_dirs') / Path(args.config).stem)
    config.work_dir = args.work_dir or config.get('work_dir') or by_name
    return config


def build_runner(config: Config) -> Runner:
    """Returns the runner of a configuration; on a machine without CUDA its processes talk gloo."""
    use_gloo_without_cuda(config)
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
