#!/usr/bin/env python
"""Turns a checkpoint of SimpleBEV's authors into one of ours.

    convert_simple_bev.py configs/_base_/models/simplebev_r101.py model-000025000.pth simplebev.pth

Every parameter must find its counterpart, on both sides; otherwise nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from explain3d.adapters.checkpoint_reading import read_checkpoint, write_checkpoint
from explain3d.core.errors import CheckpointMismatchError
from explain3d.models.simplebev.authors_names import convert


def main() -> None:
    """Writes the converted checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file with the model that fits the checkpoint')
    parser.add_argument('source', type=Path, help="the authors' checkpoint")
    parser.add_argument('target', type=Path, help='file to write')
    args = parser.parse_args()
    init_default_scope('mmdet3d')
    checkpoint = read_checkpoint(args.source)
    if 'model_state_dict' not in checkpoint:
        raise CheckpointMismatchError(
            f"{args.source}: expected a checkpoint of SimpleBEV's authors with "
            f"'model_state_dict', received one with {sorted(checkpoint)[:5]}."
        )
    model = MODELS.build(Config.fromfile(args.config).model)
    state = convert(checkpoint['model_state_dict'], model)
    model.load_state_dict(state, strict=True)
    write_checkpoint({'meta': {'source': args.source.name}, 'state_dict': state}, args.target)
    print(f'{args.target}: {len(state)} tensors, {args.target.stat().st_size / 2**20:.1f} MiB')


if __name__ == '__main__':
    main()
