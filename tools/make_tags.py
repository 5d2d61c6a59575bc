#!/usr/bin/env python
"""Makes the file of tags for the report of sensor shares, from nuScenes' tables.

    make_tags.py data/nuscenes

writes nuscenes_infos_val_tags.json beside nuscenes_infos_val.pkl: each frame's weather and time of
day, where scenes differ in them, and each annotated object's visibility. For other data sets see
docs/sensor_shares.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from explain3d.adapters.mmdet3d.bev.tags import make_nuscenes_tags


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', help='folder of the data set')
    parser.add_argument(
        '--infos', default='nuscenes_infos_val.pkl', help='info file in it; default: %(default)s'
    )
    parser.add_argument('--version', help='folder of the tables; default: what the file says')
    args = parser.parse_args(argv)
    print(f'Written to {make_nuscenes_tags(args.root, args.infos, args.version)}')


if __name__ == '__main__':
    main()
