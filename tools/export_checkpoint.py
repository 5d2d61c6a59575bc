#!/usr/bin/env python
"""Turns a training checkpoint into one to ship: float16 weights and a note, nothing else.

With ``--rename`` and ``--drop`` it hands the weights of one detector's parts to another's:

    export_checkpoint.py second.pth trunk.pth --drop bbox_head \
        --rename middle_encoder=pts_middle_encoder backbone=pts_backbone neck=pts_neck

With ``--average`` the weights are averaged with those that the training started from, which keeps
what a fine-tuning on few frames forgets:

    export_checkpoint.py tuned.pth out.pth --average start.pth

No code of the source runs. A source that holds other objects than MMEngine writes is refused,
unless ``--trust`` says that whoever wrote it may run code here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'plugins'))

from explain3d.adapters.checkpoint_reading import read_checkpoint, write_checkpoint  # noqa: E402
from explain3d.core.errors import UnsafeCheckpointError  # noqa: E402


def shrink(state: OrderedDict) -> OrderedDict:
    """Returns a state dict with floating-point tensors as float16.

    Raises:
        ValueError: If a value does not fit float16.
    """
    small = OrderedDict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            half = tensor.half()
            if not torch.isfinite(half).all():
                raise ValueError(f'{name}: a value does not fit float16; ship it as float32.')
            tensor = half
        small[name] = tensor.contiguous()
    small._metadata = state._metadata
    return small


def transfer(state: OrderedDict, renamed: dict[str, str], dropped: list[str]) -> OrderedDict:
    """Returns a state dict with top-level modules renamed, or left out.

    The versions of the modules go with them: without its version, MMDetection3D takes a sparse
    convolution's weight for one of spconv 1 and permutes it.
    """

    def rename(path: str) -> str:
        head, dot, rest = path.partition('.')
        return renamed.get(head, head) + dot + rest

    def kept(path: str) -> bool:
        return path.partition('.')[0] not in dropped

    moved = OrderedDict((rename(k), v) for k, v in state.items() if kept(k))
    moved._metadata = OrderedDict((rename(k), v) for k, v in state._metadata.items() if kept(k))
    return moved


def average(state: OrderedDict, other: Mapping[str, Tensor], share: float) -> OrderedDict:
    """Returns ``(1 - share) * state + share * other`` in float32; counters are those of ``state``.

    Raises:
        ValueError: If the two differ in names or shapes, or ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f'Expected a share in [0, 1], received {share}.')
    shapes, others = ({k: v.shape for k, v in each.items()} for each in (state, other))
    if shapes != others:
        differing = sorted(k for k in shapes | others if shapes.get(k) != others.get(k))
        raise ValueError(
            f'Expected weights of one model; these differ: {", ".join(differing[:5])}.'
        )
    mixed = OrderedDict(
        (k, torch.lerp(v.float(), other[k].float(), share) if v.is_floating_point() else v)
        for k, v in state.items()
    )
    mixed._metadata = state._metadata
    return mixed


def main() -> None:
    """Writes the small checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', type=Path, help='checkpoint that MMEngine wrote')
    parser.add_argument('target', type=Path, help='file to write')
    parser.add_argument('--note', nargs='*', default=[], metavar='KEY=VALUE', help='provenance')
    parser.add_argument('--rename', nargs='*', default=[], metavar='OLD=NEW', help='modules')
    parser.add_argument('--drop', nargs='*', default=[], metavar='MODULE', help='modules')
    parser.add_argument('--average', type=Path, help='checkpoint to average the weights with')
    parser.add_argument('--share', type=float, default=0.5, help='its share; default: %(default)s')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='unpickle whatever the source holds, which may run any code of it',
    )
    args = parser.parse_args()
    try:
        checkpoint = read_checkpoint(args.source, trust=args.trust)
    except UnsafeCheckpointError as error:
        sys.exit(f'error: {error}')
    meta = {
        'iterations': checkpoint['meta']['iter'],
        'dataset_meta': {'classes': list(checkpoint['meta']['dataset_meta']['classes'])},
        **dict(pair.split('=', 1) for pair in args.note),
    }
    renamed = dict(pair.split('=', 1) for pair in args.rename)
    state = checkpoint['state_dict']
    if args.average:
        other = read_checkpoint(args.average)['state_dict']
        state = average(state, other, args.share)
        meta['averaged'] = f'{1 - args.share:g} of it, {args.share:g} of {args.average.name}'
    state = shrink(transfer(state, renamed, args.drop))
    write_checkpoint({'meta': meta, 'state_dict': state}, args.target)
    print(f'{args.target}: {args.target.stat().st_size / 2**20:.2f} MiB')
    print(json.dumps(meta, indent=2))


if __name__ == '__main__':
    main()
