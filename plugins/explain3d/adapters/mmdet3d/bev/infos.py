"""Radars and vehicles for MMDetection3D's nuScenes info files, which hold neither.

For each sample of an info file this adds:

- ``radars``: for each radar its last sweeps, the keyframe first: ``paths`` (relative to the data
  set's folder), ``radar2ego`` (S, 3, 4) float32 to the ego frame of the LiDAR keyframe (the
  motion in between is in it), ``times`` (S,) float32 seconds before that keyframe, ``max_sweeps``
  (how many were asked for);
- ``vehicles``: every annotation of a category ``vehicle.*``: ``size`` (K, 3) float32 length, width,
  height; ``box2ego`` (K, 4, 4) float32 to the same ego frame; ``visibility`` (K,) nuScenes' level,
  1 (0-40 %) to 4; ``category`` and ``instance`` (K names);
- ``scene``: the scene's name.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explain3d.core.errors import InputError
from explain3d.core.results_atomic import atomic_write

from .geometry import rigid_inverse
from .radar import RADARS

if TYPE_CHECKING:
    from nuscenes import NuScenes

_VERSION = 1


def target_path(source: Path) -> Path:
    """Returns where the info file with radars and vehicles goes: ``X_bev.pkl`` beside ``X.pkl``."""
    return source.with_name(f'{source.stem}_bev{source.suffix}')


def add_bev_infos(
    root: str | Path,
    names: list[str],
    sweeps: int = 5,
    version: str | None = None,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Writes info files with radars and vehicles beside MMDetection3D's.

    A file that was made from the same source with as many sweeps is kept, so that a stopped run
    goes on; a file appears when it is complete.

    Args:
        root: Folder of the data set: tables, samples, info files.
        names: Info files in it.
        sweeps: Sweeps of each radar, the keyframe among them.
        version: Folder of the tables; None: what the info file says.
        report: Gets a line for each file.

    Returns:
        The files.

    Raises:
        InputError: If an info file is missing or is none of nuScenes'.
    """
    root, tables, made = Path(root), {}, []
    for name in names:
        source = info_file(root, name)
        target, stamp = target_path(source), _stamp(source, sweeps)
        made.append(target)
        if target.exists() and _is_current(target, stamp, report):
            report(f'{target}: up to date')
            continue
        infos = read_infos(source)
        folder = version or version_of(infos, source)
        if folder not in tables:
            from nuscenes import NuScenes

            tables[folder] = NuScenes(folder, str(root), verbose=False)
        for info in infos['data_list']:
            info |= sample_additions(tables[folder], info['token'], sweeps)
        infos['metainfo']['bev'] = stamp
        _write(target, infos)
        report(f'{target}: {len(infos["data_list"])} samples')
    return made


def _is_current(target: Path, stamp: dict, report: Callable[[str], None]) -> bool:
    try:
        return read_infos(target).get('metainfo', {}).get('bev') == stamp
    except InputError as error:
        report(f'{error} It is made again.')
        return False


def info_file(root: str | Path, name: str) -> Path:
    """Returns an info file of MMDetection3D's.

    Raises:
        InputError: If it is missing.
    """
    source = Path(root) / name
    if not source.exists():
        raise InputError(
            f"Expected MMDetection3D's info file {source}, which is missing: make it with its "
            f'tools/create_data.py nuscenes.'
        )
    return source


def version_of(infos: dict, source: Path) -> str:
    """Returns the folder of the tables that an info file was made from.

    Raises:
        InputError: If it does not say.
    """
    version = infos['metainfo'].get('version')
    if version is None:
        raise InputError(
            f'Expected the version of nuScenes in {source}, received metainfo with '
            f'{sorted(infos["metainfo"])}: give it with --version.'
        )
    return version


def sample_additions(nusc: NuScenes, token: str, sweeps: int) -> dict:
    """Returns ``radars``, ``vehicles`` and ``scene`` of one sample, see the module."""
    sample = nusc.get('sample', token)
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    global2ego = rigid_inverse(pose_of(nusc.get('ego_pose', lidar['ego_pose_token'])))
    radars = {}
    for name in RADARS:
        records = list(_sweeps(nusc, sample['data'][name], sweeps))
        poses = [global2ego @ _sensor2global(nusc, record) for record in records]
        radars[name] = dict(
            paths=[record['filename'] for record in records],
            radar2ego=np.stack(poses)[:, :3].astype(np.float32),
            times=np.array(
                [(lidar['timestamp'] - record['timestamp']) / 1e6 for record in records],
                np.float32,
            ),
            max_sweeps=sweeps,
        )
    scene = nusc.get('scene', sample['scene_token'])['name']
    return dict(radars=radars, vehicles=_vehicles(nusc, sample['anns'], global2ego), scene=scene)


def _vehicles(nusc: NuScenes, tokens: list[str], global2ego: np.ndarray) -> dict:
    found = [nusc.get('sample_annotation', token) for token in tokens]
    found = [a for a in found if a['category_name'].startswith('vehicle.')]
    poses = [global2ego @ pose_of(a) for a in found]
    # nuScenes has width, length, height.
    sizes = [[a['size'][1], a['size'][0], a['size'][2]] for a in found]
    return dict(
        size=np.array(sizes, np.float32).reshape(-1, 3),
        box2ego=np.array(poses, np.float32).reshape(-1, 4, 4),
        # Annotations without a level (there are none in nuScenes itself) count as visible.
        visibility=np.array([int(a['visibility_token'] or 4) for a in found], np.int64),
        category=[a['category_name'] for a in found],
        instance=[a['instance_token'] for a in found],
    )


def _sweeps(nusc: NuScenes, token: str, number: int) -> Iterator[dict]:
    """Yields a sensor's records, backwards in time."""
    for _ in range(number):
        if not token:
            return
        record = nusc.get('sample_data', token)
        yield record
        token = record['prev']


def _sensor2global(nusc: NuScenes, record: dict) -> np.ndarray:
    sensor = nusc.get('calibrated_sensor', record['calibrated_sensor_token'])
    return pose_of(nusc.get('ego_pose', record['ego_pose_token'])) @ pose_of(sensor)


def pose_of(record: dict) -> np.ndarray:
    """The 4 x 4 matrix of a record with a translation and a quaternion (w, x, y, z)."""
    w, x, y, z = np.asarray(record['rotation'], np.float64) / np.linalg.norm(record['rotation'])
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = record['translation']
    return matrix


def _stamp(source: Path, sweeps: int) -> dict:
    found = source.stat()
    return dict(
        version=_VERSION, sweeps=sweeps, source=[source.name, found.st_size, found.st_mtime_ns]
    )


def read_infos(path: Path) -> dict:
    """Returns what an info file holds.

    It is pickle: reading one runs whatever code it holds, as MMDetection3D's data sets do.

    Raises:
        InputError: If it is damaged.
    """
    try:
        with path.open('rb') as file:
            return pickle.load(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # Whatever pickle makes of other bytes.
        raise InputError(
            f'{path} is no info file ({type(error).__name__}: {error}): expected one that '
            "MMDetection3D's tools/create_data.py or tools/make_mini_dataset.py wrote. Delete it "
            'and make it again.'
        ) from error


def _write(path: Path, infos: dict) -> None:
    with atomic_write(path, 'the info file') as file:
        pickle.dump(infos, file)
