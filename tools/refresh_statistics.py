#!/usr/bin/env python
"""Estimates batch normalisation's statistics anew, for weights that were averaged.

    tools/refresh_statistics.py CONFIG CHECKPOINT OUT

goes through the configuration's training frames without pasted objects (ObjectSample) and writes a
small checkpoint, as export_checkpoint.py does, with what its notes said before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from export_checkpoint import shrink
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed

from explain3d.adapters.checkpoint_reading import read_checkpoint, write_checkpoint
from explain3d.adapters.mmdet3d.batch_statistics import refresh_batch_statistics


def build(config: Config) -> tuple[torch.nn.Module, torch.utils.data.DataLoader]:
    """Returns the model and the loader of its training frames, nothing pasted into them."""
    config.work_dir = config.get('work_dir') or 'work_dirs/refresh_statistics'
    config.load_from = None
    dataset = config.train_dataloader.dataset
    dataset.pipeline = [step for step in dataset.pipeline if step.type != 'ObjectSample']
    runner = Runner.from_cfg(config)
    return runner.model, runner.build_dataloader(config.train_dataloader, seed=0)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the small checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='configuration with train_dataloader')
    parser.add_argument('checkpoint', help='weights')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument('--epochs', type=int, default=3, help='default: %(default)s')
    args = parser.parse_args(argv)
    model, loader = build(Config.fromfile(args.config))
    found = read_checkpoint(args.checkpoint)
    model.load_state_dict(found['state_dict'])
    set_random_seed(0)
    refresh_batch_statistics(model, loader, args.epochs)
    frames = args.epochs * len(loader.dataset)
    note = f'batch normalisation estimated anew over {frames} training frames of seed 0'
    meta = {**found['meta'], 'statistics': note}
    write_checkpoint({'meta': meta, 'state_dict': shrink(model.state_dict())}, args.target)
    print(json.dumps(meta, indent=2))


if __name__ == '__main__':
    main()
