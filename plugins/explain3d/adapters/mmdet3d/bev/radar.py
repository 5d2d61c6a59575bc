"""Radar points, which MMDetection3D does not load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from explain3d.core.errors import InputError
from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import move, turn

RADARS = (
    'RADAR_FRONT',
    'RADAR_FRONT_LEFT',
    'RADAR_FRONT_RIGHT',
    'RADAR_BACK_LEFT',
    'RADAR_BACK_RIGHT',
)

#: The fields of a nuScenes radar file, in the devkit's order.
PCD_FIELDS = (
    *('x', 'y', 'z', 'dyn_prop', 'id', 'rcs', 'vx', 'vy', 'vx_comp', 'vy_comp'),
    *('is_quality_valid', 'ambig_state', 'x_rms', 'y_rms', 'invalid_state', 'pdh0'),
    *('vx_rms', 'vy_rms'),
)
#: All of them and ``time``, the seconds before the reference time: SimpleBEV's "metadata".
ALL_FEATURES = (*PCD_FIELDS[3:], 'time')

#: Pairs of fields that are horizontal vectors.
VECTORS = (('vx', 'vy'), ('vx_comp', 'vy_comp'))

# What the devkit keeps by default, and everything there is.
_FILTERS = {
    True: dict(invalid_states=[0], dynprop_states=range(7), ambig_states=[3]),
    False: dict(invalid_states=range(18), dynprop_states=range(8), ambig_states=range(5)),
}


def read_radar(path: str | Path, filtered: bool = False) -> np.ndarray:
    """Returns the points (P, 18) of a nuScenes radar file in the radar's frame (`PCD_FIELDS`).

    Args:
        path: ``.pcd`` file.
        filtered: Keep only what the devkit keeps by default (valid, not ambiguous); SimpleBEV's
            authors keep everything.
    """
    # The devkit imports matplotlib and more: only where radar is read.
    from nuscenes.utils.data_classes import RadarPointCloud

    return RadarPointCloud.from_file(str(path), **_FILTERS[filtered]).points.T


@TRANSFORMS.register_module()
class LoadRadarSweeps(BaseTransform):
    """Loads the last sweeps of all radars into the ego frame of the LiDAR keyframe.

    Reads ``radars``, which ``tools/add_bev_infos.py`` adds to MMDetection3D's info files: for each
    radar ``paths``, ``radar2ego`` (S, 3, 4) with the ego motion up to the keyframe in it, and
    ``times`` (S,), seconds before the keyframe. Writes ``radar`` (P, 3 + len(features)) float32
    and ``radar_fields``.

    Two things differ from SimpleBEV's authors, who move points to the ego pose of the front
    radar's keyframe and leave velocities along the axes of each radar: here everything is in one
    frame. ``velocities='sensor'`` leaves velocities as the authors' weights know them.

    Args:
        sweeps: Sweeps of each radar, fewer at the beginning of a scene; (low, high) draws their
            number anew for each sample, for training.
        features: Names out of `ALL_FEATURES`, the columns after x, y, z.
        filtered: Keep only what the devkit keeps by default.
        min_distance: Points with |x| and |y| below this from their radar are left out, metres.
        velocities: ``ego`` or ``sensor``: along whose axes velocities are.

    Raises:
        InputError: At construction, if a feature is not known; in use, if the info files lack
            radars or hold fewer sweeps.
    """

    def __init__(
        self,
        sweeps: int | tuple[int, int] = 5,
        features: Sequence[str] = ALL_FEATURES,
        filtered: bool = False,
        min_distance: float = 2.2,
        velocities: str = 'ego',
    ) -> None:
        unknown = [name for name in features if name not in ALL_FEATURES]
        if unknown or velocities not in ('ego', 'sensor'):
            raise InputError(
                f"Expected features out of {ALL_FEATURES} and velocities 'ego' or 'sensor', "
                f'received {unknown or velocities!r}: correct the names.'
            )
        self.sweeps = (sweeps, sweeps) if isinstance(sweeps, int) else tuple(sweeps)
        self.features = tuple(features)
        self.filtered = filtered
        self.min_distance = min_distance
        self.velocities = velocities

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``radar``, ``radar_fields`` and ``radar_velocities``."""
        if 'radars' not in results:
            raise InputError(
                'Expected radars in the info file, received none: run tools/add_bev_infos.py and '
                'name its file as ann_file.'
            )
        number = random.randint(*self.sweeps)
        clouds = [np.zeros((0, 3 + len(self.features)))]
        for radar in results['radars'].values():
            if number > radar['max_sweeps']:
                raise InputError(
                    f'Expected at least {number} sweeps a radar in the info file, which was made '
                    f'with {radar["max_sweeps"]}: run tools/add_bev_infos.py --sweeps {number}.'
                )
            sweeps = zip(radar['paths'], radar['radar2ego'], radar['times'], strict=True)
            clouds += [self._load(*sweep) for sweep, _ in zip(sweeps, range(number), strict=False)]
        results['radar'] = np.concatenate(clouds).astype(np.float32)
        results['radar_fields'] = ('x', 'y', 'z', *self.features)
        results['radar_velocities'] = self.velocities
        return results

    def _load(self, path: str, radar2ego: np.ndarray, time: float) -> np.ndarray:
        points = read_radar(path, self.filtered)
        points = points[(np.abs(points[:, :2]) >= self.min_distance).any(1)]
        columns = dict(zip(PCD_FIELDS, points.T, strict=True))
        columns['time'] = np.full(len(points), time)
        if self.velocities == 'ego':
            for names in VECTORS:
                flat = np.stack([columns[n] for n in names] + [np.zeros(len(points))], 1)
                columns.update(zip(names, turn(flat, radar2ego).T, strict=False))
        moved = move(points[:, :3], radar2ego)
        return np.column_stack([moved, *(columns[name] for name in self.features)])


@TRANSFORMS.register_module()
class LoadRadarArray(BaseTransform):
    """Loads radar points that are already together in the ego frame, from a ``.npy`` file.

    Reads ``radar_path``: (P, 3 + F) with the columns ``fields``; the rest as `LoadRadarSweeps`.

    Args:
        fields: Names of the file's columns.
        features: The columns wanted after x, y, z.
    """

    def __init__(
        self,
        fields: Sequence[str] = ('x', 'y', 'z', 'vx_comp', 'vy_comp', 'rcs'),
        features: Sequence[str] = ('vx_comp', 'vy_comp', 'rcs'),
    ) -> None:
        wanted = ('x', 'y', 'z', *features)
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise InputError(f'Expected columns out of {tuple(fields)}, received {missing}.')
        self.wanted = wanted
        self.columns = [list(fields).index(name) for name in wanted]

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``radar``, ``radar_fields`` and ``radar_velocities``."""
        results['radar'] = np.load(results['radar_path'])[:, self.columns].astype(np.float32)
        results['radar_fields'] = self.wanted
        results['radar_velocities'] = 'ego'
        return results
