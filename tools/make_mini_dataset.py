"""Makes the small data sets: the simulated mini world, and work folders over real frames.

make_mini_dataset.py kitti --out data/mini_kitti --mmdet3d-infos
make_mini_dataset.py nuscenes --out data/mini_nuscenes --workers 2 --mmdet3d-infos
make_mini_dataset.py waymo --out data/mini_waymo --workers 2
make_mini_dataset.py kitti-real --out data/kitti-mini   (finds frames by EXPLAIN3D_REAL_DATA)
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'plugins'))

from explain3d.core.errors import Explain3DError  # noqa: E402
from explain3d.datasets.mini.build import KittiParameters, build_kitti  # noqa: E402
from explain3d.datasets.mini.build_nuscenes import NuScenesParameters, build_nuscenes  # noqa: E402
from explain3d.datasets.mini.build_waymo import WaymoParameters, build_waymo  # noqa: E402


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    formats = parser.add_subparsers(dest='format', required=True)
    kitti = formats.add_parser('kitti', help='KITTI object layout')
    kitti.add_argument('--out', type=Path, default=Path('data/mini_kitti'))
    kitti.add_argument('--frames', type=int, default=250)
    kitti.add_argument('--first-frame', type=int, default=0, help='number of the first frame')
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
    _add_pcdet_infos(kitti)
    _add_nuscenes(formats)
    _add_waymo(formats)
    real = formats.add_parser('kitti-real', help='a work folder over read-only KITTI frames')
    real.add_argument('--out', type=Path, default=Path('data/kitti-mini'))
    real.add_argument('--source', type=Path, help='default: kitti-mini in EXPLAIN3D_REAL_DATA')
    real.add_argument(
        '--mmdet3d-infos',
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make MMDetection3D's info files and ground-truth database",
    )
    _add_pcdet_infos(real)
    return parser.parse_args(argv)


def _add_pcdet_infos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--pcdet-infos', action='store_true', help="make OpenPCDet's info files too"
    )


def _add_nuscenes(formats: argparse._SubParsersAction) -> None:
    default = NuScenesParameters()
    nuscenes = formats.add_parser('nuscenes', help='nuScenes layout')
    nuscenes.add_argument('--out', type=Path, default=Path('data/mini_nuscenes'))
    nuscenes.add_argument('--scenes-train', type=int, default=default.scenes_train)
    nuscenes.add_argument('--scenes-val', type=int, default=default.scenes_val)
    nuscenes.add_argument(
        '--scenes-test',
        type=int,
        default=default.scenes_test,
        help='scenes without boxes in the tables of v1.0-test',
    )
    nuscenes.add_argument('--keyframes', type=int, default=default.keyframes, help='in each scene')
    nuscenes.add_argument(
        '--radar-sweeps', type=int, default=default.radar_sweeps, help='before each keyframe'
    )
    nuscenes.add_argument(
        '--lidar-sweeps', type=int, default=default.lidar_sweeps, help='before each keyframe'
    )
    nuscenes.add_argument(
        '--image-size',
        type=_size,
        default=default.image_size,
        metavar='WIDTHxHEIGHT',
        help='pixels of the pictures, %(default)s by default',
    )
    nuscenes.add_argument(
        '--image-step',
        type=int,
        default=default.image_step,
        help='rays of the pictures are cast for blocks of so many pixels',
    )
    nuscenes.add_argument(
        '--version', choices=('v1.0-trainval', 'v1.0-mini'), default=default.version
    )
    nuscenes.add_argument('--seed', type=int, default=default.seed)
    nuscenes.add_argument('--workers', type=int, default=1)
    nuscenes.add_argument(
        '--mmdet3d-infos',
        action='store_true',
        help="make MMDetection3D's info files and ground-truth database too",
    )


def _add_waymo(formats: argparse._SubParsersAction) -> None:
    default = WaymoParameters()
    waymo = formats.add_parser('waymo', help='processed Waymo layouts of both toolboxes')
    waymo.add_argument('--out', type=Path, default=Path('data/mini_waymo'))
    waymo.add_argument(
        '--segments',
        type=int,
        nargs=2,
        default=(default.segments_train, default.segments_val),
        metavar=('TRAIN', 'VAL'),
        help='segments for training and for validation, %(default)s by default',
    )
    waymo.add_argument(
        '--frames', type=int, default=default.frames, help='in each segment, at 10 Hz'
    )
    waymo.add_argument(
        '--hosts',
        type=lambda text: tuple(text.split(',')),
        default=default.hosts,
        metavar='HOST,...',
        help='whose layouts: pcdet, mmdet3d, or both (the default)',
    )
    waymo.add_argument(
        '--columns', type=int, default=default.columns, help="of the LiDAR; Waymo's has 2650"
    )
    waymo.add_argument(
        '--images', action='store_true', help='pictures of five cameras (mmdet3d only)'
    )
    waymo.add_argument(
        '--image-size',
        type=_size,
        default=default.image_size,
        metavar='WIDTHxHEIGHT',
        help='pixels of the pictures, %(default)s by default',
    )
    waymo.add_argument('--seed', type=int, default=default.seed)
    waymo.add_argument('--workers', type=int, default=1)


def _size(text: str) -> tuple[int, int]:
    width, height = text.lower().split('x')
    return int(width), int(height)


def real_source(source: Path | None) -> Path:
    """Returns the folder of the real frames."""
    if source is None and not os.environ.get('EXPLAIN3D_REAL_DATA'):
        sys.exit(
            'error: expected --source, or EXPLAIN3D_REAL_DATA naming a folder with kitti-mini/ in '
            'the KITTI object layout.'
        )
    return source or Path(os.environ['EXPLAIN3D_REAL_DATA']) / 'kitti-mini'


def make_simulated(args: argparse.Namespace) -> None:
    """Makes the mini world's frames, and the info files if they are asked for."""
    parameters = KittiParameters(
        frames=args.frames,
        val_frames=args.val_frames,
        seed=args.seed,
        fov_only=args.fov_only,
        first_frame=args.first_frame,
    )
    build_kitti(args.out, parameters, args.workers)
    if args.mmdet3d_infos:
        # Imported here: the data alone need no host toolbox.
        from explain3d.datasets.mmdet3d_infos import make_mmdet3d_infos

        make_mmdet3d_infos(args.out)
    if args.pcdet_infos:
        from explain3d.datasets.pcdet_infos import make_pcdet_infos

        make_pcdet_infos(args.out)


def make_nuscenes(args: argparse.Namespace) -> None:
    """Makes the mini world's scenes, and the info files if they are asked for."""
    names = NuScenesParameters.__dataclass_fields__
    parameters = NuScenesParameters(**{name: getattr(args, name) for name in names})
    build_nuscenes(args.out, parameters, args.workers)
    if args.mmdet3d_infos:
        from explain3d.datasets.mmdet3d_infos import make_nuscenes_infos

        make_nuscenes_infos(args.out, parameters.version)


def make_waymo(args: argparse.Namespace) -> None:
    """Makes the mini world's segments in the processed layouts of the toolboxes."""
    train, val = args.segments
    parameters = WaymoParameters(
        seed=args.seed,
        frames=args.frames,
        columns=args.columns,
        images=args.images,
        image_size=args.image_size,
        segments_train=train,
        segments_val=val,
        hosts=args.hosts,
    )
    build_waymo(args.out, parameters, args.workers)


def make_real(args: argparse.Namespace) -> None:
    """Links to real frames and makes the info files beside the links."""
    from explain3d.datasets.kitti_layout import link_kitti

    link_kitti(real_source(args.source), args.out)
    if args.mmdet3d_infos:
        from explain3d.datasets.mmdet3d_infos import make_mmdet3d_infos

        make_mmdet3d_infos(args.out)
    if args.pcdet_infos:
        from explain3d.datasets.pcdet_infos import make_pcdet_infos

        make_pcdet_infos(args.out)


_MAKERS = {
    'kitti': make_simulated,
    'nuscenes': make_nuscenes,
    'waymo': make_waymo,
    'kitti-real': make_real,
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = parse_args(argv)
    try:
        _MAKERS[args.format](args)
    except Explain3DError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
