"""Tags of nuScenes' frames and objects: weather and time of day, visibility."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch

from explain3d.lmd.tags import FrameTags, write_tags

from .geometry import rigid_inverse
from .infos import info_file, pose_of, read_infos, version_of

if TYPE_CHECKING:
    from nuscenes import NuScenes

#: nuScenes writes it into a scene's description if it rains, or if it is dark.
_SCENES = {'weather': ('rain', 'dry'), 'time': ('night', 'day')}


def make_nuscenes_tags(
    root: str | Path, infos: str = 'nuscenes_infos_val.pkl', version: str | None = None
) -> Path:
    """Writes ``X_tags.json`` beside MMDetection3D's info file ``X.pkl``.

    Args:
        root: Folder of the data set: tables, samples, info files.
        infos: Info file in it.
        version: Folder of the tables; None: what the info file says.

    Returns:
        The file.

    Raises:
        InputError: If the info file is missing, or says no version.
        ResultFileError: If the file cannot be written.
    """
    source = info_file(root, infos)
    content = read_infos(source)
    from nuscenes import NuScenes

    nusc = NuScenes(version or version_of(content, source), str(root), verbose=False)
    tagged = scene_tags(nusc)
    frames = dict(frame_tags(nusc, info['token'], tagged) for info in content['data_list'])
    target = source.with_name(f'{source.stem}_tags.json')
    write_tags(target, frames)
    return target


def scene_tags(nusc: NuScenes) -> dict[str, dict[str, str]]:
    """Returns the tags of each scene by its token; only those that tell scenes apart."""
    found: dict[str, dict[str, str]] = {scene['token']: {} for scene in nusc.scene}
    for tag, (word, otherwise) in _SCENES.items():
        values = {s['token']: word in s['description'].lower() for s in nusc.scene}
        if len(set(values.values())) > 1:
            for token, value in values.items():
                found[token][tag] = word if value else otherwise
    return found


def frame_tags(
    nusc: NuScenes, token: str, scenes: dict[str, dict[str, str]]
) -> tuple[str, FrameTags]:
    """Returns a sample's name, which is its point file's stem, and its tags."""
    sample = nusc.get('sample', token)
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    lidar2ego = pose_of(nusc.get('calibrated_sensor', lidar['calibrated_sensor_token']))
    lidar2global = pose_of(nusc.get('ego_pose', lidar['ego_pose_token'])) @ lidar2ego
    found = [nusc.get('sample_annotation', each) for each in sample['anns']]
    boxes = [_box(a, rigid_inverse(lidar2global)) for a in found]
    levels = [
        nusc.get('visibility', a['visibility_token'])['level'] if a['visibility_token'] else None
        for a in found
    ]
    tags = FrameTags(
        scenes[sample['scene_token']],
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 7),
        {'visibility': levels},
    )
    return PurePosixPath(lidar['filename']).stem, tags


def _box(annotation: dict, global2lidar: np.ndarray) -> list[float]:
    pose = global2lidar @ pose_of(annotation)
    width, length, height = annotation['size']
    yaw = math.atan2(pose[1, 0], pose[0, 0])
    return [round(float(v), 3) for v in (*pose[:3, 3], length, width, height, yaw)]
