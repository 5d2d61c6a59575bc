"""MMDetection3D's info files for KITTI and nuScenes layouts, made by its own converters.

The wheel ships its converters as plain files below ``mmdet3d/.mim/tools``; they are loaded from
there as a package of another name, because ``tools`` is also a folder of most repositories.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from ..core.errors import InputError
from .contents import is_current, read_json, write_stamp
from .kitti_layout import REMEDY, SPLITS, check_frames, check_kitti, link_kitti, members

_CONVERTERS = 'explain3d_mmdet3d_converters'
_STAMP = 'mmdet3d_infos.json'
_LOG = logging.getLogger('explain3d')


def make_mmdet3d_infos(root: str | Path) -> Path:
    """Makes info files, reduced clouds and the ground-truth database of a KITTI-format data set.

    Writes ``kitti_infos_{train,val,trainval}.pkl`` (the format `KittiDataset` of MMDetection3D
    1.x reads; ``test`` too if there are test frames), ``kitti_dbinfos_train.pkl``,
    ``kitti_gt_database/`` and ``training/velodyne_reduced/`` into ``root``. What is there and was
    made by this function for the same frames is kept; other files of these names are replaced.

    Args:
        root: Writable folder with ``ImageSets`` and ``training``.

    Returns:
        ``root``.

    Raises:
        InputError: If ``root`` lacks a part of the KITTI layout, or a file is damaged.
        ImportError: If MMDetection3D or what its converter needs is not installed.
    """
    root = Path(root)
    check_kitti(root)
    check_frames(root)
    wanted = {'version': _version(), 'splits': {s: members(root, s) for s in SPLITS}}
    stamp = root / _STAMP
    if is_current(stamp, wanted, _LOG.warning):
        return root
    stamp.unlink(missing_ok=True)
    _convert(root)
    folders = [root / 'kitti_gt_database', root / 'training' / 'velodyne_reduced']
    _write_stamp(stamp, wanted, 'kitti', folders)
    return root


def _write_stamp(stamp: Path, wanted: dict, prefix: str, folders: list[Path]) -> None:
    infos = [
        path
        for kind in ('infos', 'dbinfos')
        for path in sorted(stamp.parent.glob(f'{prefix}_{kind}_*.pkl'))
        if not path.stem.endswith('_bev')  # Of tools/add_bev_infos.py.
    ]
    write_stamp(stamp, wanted, [*infos, *(folder for folder in folders if folder.is_dir())])


def make_nuscenes_infos(
    root: str | Path, version: str = 'v1.0-trainval', max_sweeps: int = 10
) -> Path:
    """Makes info files and the ground-truth database of a nuScenes-format data set.

    Writes ``nuscenes_infos_{train,val}.pkl`` (the format `NuScenesDataset` of MMDetection3D 1.x
    reads), ``nuscenes_dbinfos_train.pkl`` and ``nuscenes_gt_database/`` into ``root``. What is
    there and was made by this function for the same scenes is kept; other files of these names
    are replaced.

    The converter takes every picture for 1600 x 900 pixels when it clips the 2D boxes in
    ``cam_instances``, which only monocular detectors read.

    Args:
        root: Writable folder with the tables, ``samples`` and ``sweeps``.
        version: Folder of the tables.
        max_sweeps: LiDAR sweeps before each keyframe that are listed, at most.

    Returns:
        ``root``.

    Raises:
        InputError: If ``root`` lacks a part of the nuScenes layout.
        ImportError: If MMDetection3D or what its converter needs is not installed.
    """
    root = Path(root)
    parts = (f'{version}/scene.json', f'{version}/sample.json', 'samples/LIDAR_TOP')
    missing = [part for part in parts if not (root / part).exists()]
    if missing:
        raise InputError(
            f'Expected a nuScenes-format data set in {root}, which lacks {missing}: make one with '
            f'tools/make_mini_dataset.py or give the folder that holds samples and {version}.'
        )
    samples = read_json(root / version / 'sample.json', 'a table of nuScenes', REMEDY)
    wanted = {
        'mmdet3d': _version(),
        'version': version,
        'max_sweeps': max_sweeps,
        'samples': [sample['token'] for sample in samples],
    }
    stamp = root / _STAMP
    if is_current(stamp, wanted, _LOG.warning):
        return root
    stamp.unlink(missing_ok=True)
    _convert_nuscenes(root, version, max_sweeps)
    _write_stamp(stamp, wanted, 'nuscenes', [root / 'nuscenes_gt_database'])
    return root


def _convert_nuscenes(root: Path, version: str, max_sweeps: int) -> None:
    import mmdet3d.datasets  # noqa: F401  (registers NuScenesDataset and its transforms)
    import mmengine
    from mmengine.registry import DefaultScope
    from nuscenes.nuscenes import NuScenes

    update = _converter('update_infos_to_v2')
    # The converter looks for the tables in ./data/nuscenes, wherever the info files are.
    update.NuScenes = lambda dataroot, **kwargs: NuScenes(dataroot=str(root), **kwargs)
    _converter('nuscenes_converter').create_nuscenes_infos(
        str(root), 'nuscenes', version=version, max_sweeps=max_sweeps
    )
    for split in ('train', 'val'):
        path = root / f'nuscenes_infos_{split}.pkl'
        if mmengine.load(path)['infos']:
            update.update_nuscenes_infos(str(path), str(root))
        else:
            path.unlink()  # the converter fails on an empty split
    if not (root / 'nuscenes_infos_train.pkl').exists():
        return
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        _converter('create_gt_database').create_groundtruth_database(
            'NuScenesDataset', str(root), 'nuscenes', 'nuscenes_infos_train.pkl'
        )


def prepare_kitti(root_in: str | Path, root_out: str | Path) -> Path:
    """Links a read-only KITTI-format data set into a work folder and makes the info files there.

    Args:
        root_in: Data set with ``ImageSets`` and ``training``; left untouched.
        root_out: Work folder, created if need be.

    Returns:
        ``root_out``.

    Raises:
        InputError: If ``root_in`` lacks a part of the KITTI layout, or ``root_out`` holds links
            to another data set.
    """
    return make_mmdet3d_infos(link_kitti(root_in, root_out))


def _version() -> str:
    try:
        import mmdet3d
    except ImportError as error:
        raise ImportError(
            'The info files are made by MMDetection3D, which is not installed: '
            'run "pip install mmdet3d" with mmcv, mmdet and mmengine.'
        ) from error
    return mmdet3d.__version__


def _converter(name: str) -> ModuleType:
    """Imports one of the wheel's converter modules."""
    import mmdet3d

    if _CONVERTERS not in sys.modules:
        package = Path(mmdet3d.__file__).parent
        # A wheel has its tools in .mim, a source checkout beside the package.
        folders = [package / '.mim' / 'tools', package.parent / 'tools']
        folder = next((f for f in folders if (f / 'dataset_converters').is_dir()), None)
        if folder is None:
            raise ImportError(
                f'Expected the data set converters in one of {[str(f) for f in folders]} and '
                f'found none: install the mmdet3d wheel.'
            )
        spec = importlib.util.spec_from_loader(_CONVERTERS, loader=None, is_package=True)
        spec.submodule_search_locations = [str(folder / 'dataset_converters')]
        sys.modules[_CONVERTERS] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f'{_CONVERTERS}.{name}')


def _convert(root: Path) -> None:
    import mmdet3d.datasets  # noqa: F401  (registers KittiDataset and its transforms)
    from mmengine.registry import DefaultScope

    kitti = _converter('kitti_converter')
    update = _converter('update_infos_to_v2')
    database = _converter('create_gt_database')
    # The converter overwrites its own first-format files after a pause; elsewhere it need not.
    with tempfile.TemporaryDirectory(prefix='kitti_infos_') as scratch:
        kitti.create_kitti_info_file(str(root), 'kitti', save_path=scratch)
        (root / 'training' / 'velodyne_reduced').mkdir(exist_ok=True)
        paths = {split: str(Path(scratch) / f'kitti_infos_{split}.pkl') for split in SPLITS}
        kitti.create_reduced_point_cloud(
            str(root), 'kitti', paths['train'], paths['val'], paths['test']
        )
        for split, path in paths.items():
            # The converter fails on an empty split, as the test split may be.
            if members(root, split):
                update.update_kitti_infos(path, str(root))
    if not members(root, 'train'):
        return
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        database.create_groundtruth_database(
            'KittiDataset', str(root), 'kitti', 'kitti_infos_train.pkl', relative_path=False
        )
