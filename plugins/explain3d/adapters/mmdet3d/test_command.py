"""The command that tests, and explains, a 3D detector of MMDetection3D.

The same options as MMDetection3D's own ``tools/test.py``, which works with the same configurations.
Added are ``--out-dir`` for the explanations, and that the checkpoint may come from the
configuration (``load_from``).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from .command_line import build_runner, common_parser, parse, read_config
from .cpu_processes import leave_processes

TASKS = ['mono_det', 'multi-view_det', 'lidar_det', 'lidar_seg', 'multi-modality_det']


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = common_parser('Tests, and explains, a 3D detector.')
    parser.add_argument('checkpoint', nargs='?', help="default: the configuration's load_from")
    parser.add_argument('--out-dir', help='folder of the explanations')
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument('--show-dir', help='folder of painted predictions')
    parser.add_argument('--score-thr', type=float, default=0.1, help='least score that is painted')
    parser.add_argument('--task', choices=TASKS, help='how to paint predictions')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show a frame')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parse(parser, argv)


def build_config(args: argparse.Namespace) -> Config:
    """Returns the configuration with the command line's options in it."""
    config = read_config(args)
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

    Explainers are hooks, the model if it explains itself, and the test loop. Each ``type`` is text,
    or the class itself in configurations that import what they name.
    """
    kinds = dict(ExplainerHook='outputs', ExplainedModel='outputs')
    kinds |= dict(LMDHook='results', DecomposedModel='results', SensorShareHook='results')
    kinds |= dict(SeparationTestLoop='file')
    hooks = [*(config.get('custom_hooks') or ()), *(config.get('default_hooks') or {}).values()]
    for part in [*hooks, config.get('model'), config.get('test_cfg')]:
        # Hooks may also be instances, and default hooks None.
        key = kinds.get(type_name(part.get('type'))) if isinstance(part, Mapping) else None
        if key is not None:
            yield part, key


def type_name(kind: Any) -> str:
    """Returns the name of a configuration's ``type``, which may be text or what it names."""
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


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
    metrics = build_runner(build_config(parse_args(argv))).test()
    leave_processes()
    return metrics
