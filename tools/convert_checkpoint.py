#!/usr/bin/env python
"""Converts weights of SECOND or voxel CenterPoint between MMDetection3D and OpenPCDet.

    convert_checkpoint.py checkpoints/second_small_miniworld.pth second_pcdet.pth
    convert_checkpoint.py second_7862.pth second_mmdet3d.pth \
        --source-classes Car Pedestrian Cyclist --classes Pedestrian Cyclist Car

The file tells which of the two it is of. MMDetection3D's KITTI files have the classes in the order
Pedestrian, Cyclist, Car, OpenPCDet's in the order Car, Pedestrian, Cyclist: give ``--classes`` for
a stock configuration of the other toolbox. What the configuration must say beside that is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'plugins'))

from explain3d.adapters.checkpoint_convert import (  # noqa: E402
    configuration_hints,
    convert_checkpoint,
    load_checkpoint,
)
from explain3d.adapters.checkpoint_reading import write_checkpoint  # noqa: E402
from explain3d.core.errors import Explain3DError  # noqa: E402


def main() -> None:
    """Writes the converted checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='checkpoint of either toolbox')
    parser.add_argument('target', type=Path, help='file to write, for the other toolbox')
    parser.add_argument('--classes', nargs='+', help='wanted order of the classes (SECOND)')
    parser.add_argument('--source-classes', nargs='+', help='order of the classes in the source')
    args = parser.parse_args()
    try:
        checkpoint = load_checkpoint(args.source)
        converted = convert_checkpoint(checkpoint, args.classes, args.source_classes)
    except (Explain3DError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')
    write_checkpoint(converted, args.target)
    print(f'{args.target}: {args.target.stat().st_size / 2**20:.2f} MiB')
    print(json.dumps(converted['meta'], indent=2, default=str))
    print(configuration_hints(converted['meta']['conversion']))


if __name__ == '__main__':
    main()
