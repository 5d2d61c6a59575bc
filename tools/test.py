"""Tests, and explains, a 3D detector.

The same options as MMDetection3D's own ``tools/test.py``, which works with the same configurations.
Added are ``--out-dir`` for the explanations, and that the checkpoint may come from the
configuration (``load_from``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from explain3d.adapters.mmdet3d.cpu_processes import leave_processes, use_gloo_without_cuda

TASKS = ['mono_det', 'multi-view_det', 'lidar_det', 'lidar_seg', 'multi-modality_det']


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description='Tests, and explains, a 3D detector.')
    parser.add_argument('config', help='configuration file')
    parser.add_argument('checkpoint', nargs='?', help="default: the configuration's load_from")
    parser.add_argument('--work-dir', help='folder of logs and metrics')
    parser.add_argument('--out-dir', help='folder of the explanations')
    parser.add_argument('--ceph', action='store_true', help='read data from Ceph')
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument('--show-dir', help='folder of painted predictions')
    parser.add_argument('--score-thr', type=float, default=0.1, help='least score that is painted')
    parser.add_argument('--task', choices=TASKS, help='how to paint predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show a frame')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='changes to the configuration: key=value, nested keys joined by dots',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    # torch.distributed.launch passes --local_rank up to torch 1, --local-rank from torch 2 on.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def build_config(args: argparse.Namespace) -> Config:
    """Returns the configuration with the command line's options in it."""
    config = Config.fromfile(args.config)
    if args.ceph:
        from mmdet3d.utils import replace_ceph_backend

        config = replace_ceph_backend(config)
    config.launcher = args.launcher
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    name = os.path.splitext(os.path.basename(args.config))[0]
    config.work_dir = args.work_dir or config.get('work_dir') or os.path.join('work_dirs', name)
    config.load_from = args.checkpoint or config.get('load_from')
    if args.out_dir:
        set_out_dir(config, args.out_dir)
    if args.show or args.show_dir:
        show_predictions(config, args)
    if args.tta:
        augment(config)
    return config


def explainers(config: Config) -> Iterator[tuple[dict, str]]:
    """Yields each explainer's configuration, and which of its keys has the folder of results.

    Explainers are hooks, the model if it explains itself, and the test loop.
    """
    kinds = dict(ExplainerHook='outputs', ExplainedModel='outputs')
    kinds |= dict(LMDHook='results', DecomposedModel='results', SeparationTestLoop='file')
    for part in [*config.get('custom_hooks', []), config.model, config.get('test_cfg') or {}]:
        key = kinds.get(str(part.get('type')).rpartition('.')[2])
        if key is not None:
            yield part, key


def set_out_dir(config: Config, folder: str) -> None:
    """Sends the explanations to ``folder``."""
    found = list(explainers(config))
    if not found:
        sys.exit(
            '--out-dir needs an explainer: expected an explain3d.ExplainerHook or LMDHook among '
            'custom_hooks, an explain3d.ExplainedModel or DecomposedModel as model, or an '
            'explain3d.SeparationTestLoop as test_cfg in the configuration, found none.'
        )
    for part, key in found:
        if key == 'file':
            part[key] = os.path.join(folder, 'separation.json')
        else:
            part[key] = {**(part.get(key) or {}), 'dir': folder}


def show_predictions(config: Config, args: argparse.Namespace) -> None:
    """Turns on MMDetection3D's own visualization of predictions."""
    if args.task is None:
        sys.exit(f'--show and --show-dir need --task: expected one of {TASKS}.')
    if 'visualization' not in config.default_hooks:
        sys.exit(
            '--show and --show-dir need a visualization hook: expected visualization='
            "dict(type='Det3DVisualizationHook') in default_hooks."
        )
    hook = config.default_hooks['visualization']
    hook.update(draw=True, vis_task=args.task, score_thr=args.score_thr)
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        hook.update(test_out_dir=args.show_dir)


def augment(config: Config) -> None:
    """Wraps the model for test-time augmentation."""
    for key in ('tta_model', 'tta_pipeline'):
        if key not in config:
            sys.exit(f'--tta needs {key}: expected it in the configuration.')
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    config.model = ConfigDict(**config.tta_model, module=config.model)


def main(argv: Sequence[str] | None = None) -> dict:
    """Runs the test and returns its metrics."""
    config = build_config(parse_args(argv))
    use_gloo_without_cuda(config)
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    metrics = runner.test()
    leave_processes()
    return metrics


if __name__ == '__main__':
    main()
