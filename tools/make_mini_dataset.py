"""Makes a data set of the mini world: ``make_mini_dataset.py kitti --out data/mini_kitti``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'plugins'))

from explain3d.core.errors import Explain3DError  # noqa: E402
from explain3d.datasets.mini.build import KittiParameters, build_kitti  # noqa: E402


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    formats = parser.add_subparsers(dest='format', required=True)
    kitti = formats.add_parser('kitti', help='KITTI object layout')
    kitti.add_argument('--out', type=Path, default=Path('data/mini_kitti'))
    kitti.add_argument('--frames', type=int, default=250)
    kitti.add_argument('--val-frames', type=int, default=50, help='the last ones, for validation')
    kitti.add_argument('--seed', type=int, default=0)
    kitti.add_argument('--workers', type=int, default=1)
    kitti.add_argument(
        '--fov-only',
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write only the points in the camera's field of view",
    )
    kitti.add_argument(
        '--mmdet3d-infos',
        action='store_true',
        help="make MMDetection3D's info files and ground-truth database too",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = parse_args(argv)
    parameters = KittiParameters(args.frames, args.val_frames, args.seed, args.fov_only)
    try:
        build_kitti(args.out, parameters, args.workers)
        if args.mmdet3d_infos:
            # Imported here: the data alone need no host toolbox.
            from explain3d.datasets.mmdet3d_infos import make_mmdet3d_infos

            make_mmdet3d_infos(args.out)
    except Explain3DError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
