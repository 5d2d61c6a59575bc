#!/usr/bin/env python
"""Adds radars and vehicles' visibility to MMDetection3D's nuScenes info files.

    add_bev_infos.py data/nuscenes

writes nuscenes_infos_{train,val}_bev.pkl beside nuscenes_infos_{train,val}.pkl, which
MMDetection3D's own ``tools/create_data.py nuscenes`` makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from explain3d.adapters.mmdet3d.bev.infos import add_bev_infos


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', help='folder of the data set')
    parser.add_argument(
        '--infos',
        nargs='+',
        default=['nuscenes_infos_train.pkl', 'nuscenes_infos_val.pkl'],
        help='info files in it; default: %(default)s',
    )
    parser.add_argument('--sweeps', type=int, default=5, help='sweeps a radar; default: 5')
    parser.add_argument('--version', help='folder of the tables; default: what the file says')
    args = parser.parse_args(argv)
    add_bev_infos(args.root, args.infos, args.sweeps, args.version)


if __name__ == '__main__':
    main()
