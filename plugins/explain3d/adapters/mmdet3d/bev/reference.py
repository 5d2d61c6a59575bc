"""From the ego frame to the reference frame of a bird's-eye-view model."""

from __future__ import annotations

import random

import numpy as np
from mmcv.transforms import BaseTransform

from explain3d.core.errors import InputError
from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import EGO_TO_REFERENCE_AXES, about_vertical, move, rigid_inverse, turn
from .radar import VECTORS

# Reference axes mirrored: left becomes right.
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


@TRANSFORMS.register_module()
class ToReferenceFrame(BaseTransform):
    """Moves everything that was loaded from the ego frame into the reference frame.

    The reference frame has x right, y down, z forward (`geometry`). Writes ``ego2ref`` (4, 4) and
    ``cam2ref`` (S, 4, 4); changes ``points``, ``radar`` and the poses of ``vehicles``. Horizontal
    velocities (vx, vy) of the radar become (vx, vz), along the reference's x and z, and are
    renamed so in ``radar_fields`` (``vx_comp``, ``vz_comp``); those along a radar's own axes
    (``velocities='sensor'`` of `LoadRadarSweeps`) stay.

    For training it can turn the frame about the vertical and mirror the scene; images, cameras,
    points, velocities and vehicles stay consistent, for a mirrored camera sees a mirrored image.

    Args:
        origin: ``ego``: the ego origin at the LiDAR keyframe (on the ground below the rear axle),
            axes turned; a camera's name: that camera's own frame, as SimpleBEV's authors have it
            with CAM_FRONT; ``random_camera``: one of the loaded cameras drawn for each sample, as
            the authors train (they leave out the first in their list).
        rotate: Largest random turn about the vertical, either way, radians.
        mirror: Probability that left and right are exchanged.

    Raises:
        InputError: If ``origin`` is neither of these.
    """

    def __init__(self, origin: str = 'ego', rotate: float = 0.0, mirror: float = 0.0) -> None:
        self.origin = origin
        self.rotate = rotate
        self.mirror = mirror

    @override
    def transform(self, results: dict) -> dict:
        """Moves the sample."""
        ego2ref = self._origin(results)
        if self.rotate:
            ego2ref = about_vertical(random.uniform(-self.rotate, self.rotate)) @ ego2ref
        mirrored = random.random() < self.mirror
        if mirrored:
            ego2ref = _MIRROR @ ego2ref
        results['ego2ref'] = ego2ref
        if 'img' in results:
            self._cameras(results, mirrored)
        if 'points' in results:
            results['points'][:, :3] = move(results['points'][:, :3], ego2ref)
        if 'radar' in results:
            _radar(results, ego2ref)
        if 'vehicles' in results:
            vehicles = results['vehicles']
            poses = np.asarray(vehicles['box2ego'], np.float64).reshape(-1, 4, 4)
            results['vehicles'] = {**vehicles, 'box2ref': ego2ref @ poses}
        return results

    def _origin(self, results: dict) -> np.ndarray:
        if self.origin == 'ego':
            return EGO_TO_REFERENCE_AXES.copy()
        names = list(results.get('cam_names', ()))
        if self.origin == 'random_camera' and names:
            index = random.randrange(len(names))
        elif self.origin in names:
            index = names.index(self.origin)
        else:
            raise InputError(
                f"Expected origin 'ego', 'random_camera' or one of the loaded cameras {names}, "
                f'received {self.origin!r}: load that camera or choose another origin.'
            )
        return rigid_inverse(results['cam2ego'][index])

    @staticmethod
    def _cameras(results: dict, mirrored: bool) -> None:
        results['cam2ref'] = results['ego2ref'] @ results['cam2ego']
        if not mirrored:
            return
        # The camera's own x axis is mirrored too: its pose is a rotation again.
        results['cam2ref'] = results['cam2ref'] @ _MIRROR
        results['img'] = [image[:, ::-1] for image in results['img']]
        matrices = results['cam2img'].copy()
        matrices[:, 0, 2] = results['img'][0].shape[1] - 1 - matrices[:, 0, 2]
        results['cam2img'] = matrices


def _radar(results: dict, ego2ref: np.ndarray) -> None:
    radar, fields = results['radar'], list(results['radar_fields'])
    radar[:, :3] = move(radar[:, :3], ego2ref)
    if results['radar_velocities'] != 'ego':
        return
    for names in VECTORS:
        if not set(names) <= set(fields):
            continue
        columns = [fields.index(name) for name in names]
        flat = np.concatenate([radar[:, columns], np.zeros((len(radar), 1))], 1)
        radar[:, columns] = turn(flat, ego2ref)[:, [0, 2]]
        fields[columns[1]] = names[1].replace('vy', 'vz')
    results['radar_fields'] = tuple(fields)
