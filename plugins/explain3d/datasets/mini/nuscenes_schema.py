"""The fixed parts of the nuScenes schema: names, tokens, tables that are the same for every scene.

Scene names are borrowed from the official splits, because nuScenes's own tools, and MMDetection3D
with them, decide by the name to which split a scene belongs. The scenes have nothing else in
common with nuScenes's.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ...core.errors import InputError


def _span(*ranges: tuple[int, int]) -> tuple[str, ...]:
    return tuple(f'scene-{n:04d}' for low, high in ranges for n in range(low, high + 1))


#: Scene names that may be used per version and split; parts of the official lists.
SPLITS = {
    'v1.0-trainval': {
        'train': _span((19, 34), (41, 76), (120, 135), (149, 152), (154, 155), (157, 168),
                       (170, 185), (187, 188), (190, 196)),
        'val': _span((12, 18), (35, 36), (38, 39), (92, 110), (268, 278)),
    },
    'v1.0-mini': {
        'train': tuple(f'scene-{n:04d}' for n in (61, 553, 655, 757, 796, 1077, 1094, 1100)),
        'val': ('scene-0103', 'scene-0916'),
    },
    'v1.0-test': {'test': _span((77, 91), (111, 119))},
}  # fmt: skip

CATEGORIES = {
    'human.pedestrian.adult': 'A grown-up on foot.',
    'human.pedestrian.child': 'A child on foot.',
    'human.pedestrian.construction_worker': 'A worker on a building site.',
    'human.pedestrian.personal_mobility': 'Somebody on a skateboard, scooter or the like.',
    'human.pedestrian.police_officer': 'A police officer.',
    'human.pedestrian.stroller': 'A pram, with or without a child.',
    'human.pedestrian.wheelchair': 'A wheelchair, with or without somebody in it.',
    'animal': 'An animal.',
    'movable_object.barrier': 'A barrier that closes off a part of the road.',
    'movable_object.debris': 'Something that lies on the road.',
    'movable_object.pushable_pullable': 'Something on wheels that is pushed or pulled.',
    'movable_object.trafficcone': 'A traffic cone.',
    'static_object.bicycle_rack': 'A place for parking bicycles.',
    'vehicle.bicycle': 'A bicycle, with its rider if there is one.',
    'vehicle.bus.bendy': 'A bus with a joint.',
    'vehicle.bus.rigid': 'A bus in one piece.',
    'vehicle.car': 'A car, estate, SUV, minivan or small van.',
    'vehicle.construction': 'A vehicle for building work.',
    'vehicle.emergency.ambulance': 'An ambulance.',
    'vehicle.emergency.police': 'A police vehicle.',
    'vehicle.motorcycle': 'A motorcycle or scooter, with its rider if there is one.',
    'vehicle.trailer': 'A trailer.',
    'vehicle.truck': 'A vehicle for goods.',
}
_CATEGORY_OF = {
    'Car': 'vehicle.car', 'Van': 'vehicle.car', 'Truck': 'vehicle.truck',
    'Bus': 'vehicle.bus.rigid', 'Cyclist': 'vehicle.bicycle',
    'Pedestrian': 'human.pedestrian.adult',
}  # fmt: skip
_GROWN_UP = 1.45  # metres
_ATTRIBUTES = {
    'vehicle.moving': 'The vehicle moves.',
    'vehicle.stopped': 'The vehicle stands for a while, its driver in it.',
    'vehicle.parked': 'The vehicle was left.',
    'cycle.with_rider': 'Somebody rides.',
    'cycle.without_rider': 'Nobody rides.',
    'pedestrian.sitting_lying_down': 'The person sits or lies.',
    'pedestrian.standing': 'The person stands.',
    'pedestrian.moving': 'The person walks.',
}
#: Visible shares from which on an object has the visibility tokens 1 to 4.
VISIBILITY = (0.0, 0.4, 0.6, 0.8)
_LEVELS = ('v0-40', 'v40-60', 'v60-80', 'v80-100')


def token(*parts: object) -> str:
    """A token, 32 hexadecimal digits, that is the same for the same ``parts``."""
    text = '/'.join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def scene_names(version: str, split: str, count: int) -> tuple[str, ...]:
    """The first ``count`` names of a split.

    Raises:
        InputError: If there are fewer.
    """
    names = SPLITS[version][split]
    if not 0 <= count <= len(names):
        raise InputError(
            f'Expected 0 to {len(names)} scenes for the {split} split of {version}, received '
            f'{count}: ask for fewer scenes.'
        )
    return names[:count]


def category(label: str, height: float) -> str:
    """Category of an object of class ``label``, ``height`` metres tall."""
    if label == 'Pedestrian' and height < _GROWN_UP:
        return 'human.pedestrian.child'
    return _CATEGORY_OF[label]


def category_token(name: str) -> str:
    """Token of a category."""
    return token('category', name)


def attribute_token(label: str, moving: bool, parked: bool) -> str:
    """Token of the one attribute that an object of class ``label`` has."""
    if label == 'Cyclist':
        return token('attribute', 'cycle.with_rider')
    if label == 'Pedestrian':
        return token('attribute', 'pedestrian.moving' if moving else 'pedestrian.standing')
    state = 'moving' if moving else 'parked' if parked else 'stopped'
    return token('attribute', f'vehicle.{state}')


def visibility_token(share: float) -> str:
    """Token of a visible share 0..1."""
    return str(int(np.searchsorted(VISIBILITY, share, side='right')))


def modality(channel: str) -> str:
    """The kind of sensor a channel is."""
    return {'CAM': 'camera', 'LID': 'lidar', 'RAD': 'radar'}[channel[:3]]


def constant_tables(channels: tuple[str, ...]) -> dict[str, list[dict]]:
    """The tables category, attribute, visibility and sensor."""
    return {
        'category': [
            {'token': category_token(name), 'name': name, 'description': text}
            for name, text in CATEGORIES.items()
        ],
        'attribute': [
            {'token': token('attribute', name), 'name': name, 'description': text}
            for name, text in _ATTRIBUTES.items()
        ],
        'visibility': [
            {'token': str(k), 'level': level, 'description': f'visible share {level[1:]} %'}
            for k, level in enumerate(_LEVELS, 1)
        ],
        'sensor': [
            {'token': token('sensor', name), 'channel': name, 'modality': modality(name)}
            for name in channels
        ],
    }


def quaternion(rotation: np.ndarray) -> list[float]:
    """The unit quaternion w, x, y, z, w not negative, of a rotation matrix (3, 3).

    It is the eigenvector of the largest eigenvalue of the matrix of Bar-Itzhack (2000), which
    is exact for rotations and well behaved for all of them.
    """
    m = np.asarray(rotation, np.float64)
    trace = np.trace(m)
    skew = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    k = np.empty((4, 4))
    k[0, 0], k[0, 1:], k[1:, 0] = trace, skew, skew
    k[1:, 1:] = m + m.T - trace * np.eye(3)
    q = np.linalg.eigh(k / 3)[1][:, -1]
    # Where the turn is half a circle, the sign of the largest entry decides.
    lead = q[0] if abs(q[0]) > 1e-9 else q[np.argmax(np.abs(q))]
    return (q * np.sign(lead)).tolist()
