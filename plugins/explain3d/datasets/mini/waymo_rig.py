"""The roof LiDAR and five cameras, placed like those of Waymo's vehicle.

Round numbers close to the real ones. The vehicle frame is the ego frame: x forward, y left, z up,
origin on the ground below the rear axle. The LiDAR's axes are parallel to it; cameras have x right,
y down, z forward.
"""

from __future__ import annotations

import numpy as np

from .camera import Camera
from .lidar import Lidar, Sweep
from .materials import Material
from .mesh import yaw_matrix
from .scene import Pose

BEAMS = 64
_HIGHEST, _LOWEST = 2.4, -17.6  # degrees
# Gap between two beams at the top over that at the bottom.
_DENSER = 0.27
_TOP = (1.43, 0.0, 2.18)
_REACH = 75.0
_OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])  # camera axes seen from x forward
# Place in the vehicle frame, metres, and direction, degrees to the left, in Waymo's order.
_CAMERAS = {
    'FRONT': ((1.54, 0.0, 2.12), 0.0),
    'FRONT_LEFT': ((1.49, 0.09, 2.12), 45.0),
    'FRONT_RIGHT': ((1.49, -0.09, 2.12), -45.0),
    'SIDE_LEFT': ((1.43, 0.12, 2.12), 90.0),
    'SIDE_RIGHT': ((1.43, -0.12, 2.12), -90.0),
}
CAMERA_NAMES = tuple(_CAMERAS)
_FOCAL = 1.07  # over the image's width: 50 degrees of view
_SIDE_HEIGHT = 886 / 1280  # of the side cameras' pictures over that of the others
_DIVERGENCE, _PULSE = 1.4e-3, 2.0  # of the beam, radians, and of a pulse without stretch, metres


def top_elevations() -> np.ndarray:
    """(64,) elevations of the beams in radians, from the top down, closer together at the top."""
    gaps = np.linspace(_DENSER, 1, BEAMS - 1)
    depth = np.concatenate([[0], np.cumsum(gaps)]) / gaps.sum()
    return np.deg2rad(_HIGHEST + (_LOWEST - _HIGHEST) * depth)


def top_lidar(columns: int) -> Lidar:
    """The LiDAR on the roof; Waymo's has 2650 columns."""
    pose = Pose(np.eye(3), np.array(_TOP))
    return Lidar(pose, top_elevations(), columns=columns, reach=_REACH)


def cameras(image_size: tuple[int, int]) -> dict[str, Camera]:
    """The five cameras by name.

    Args:
        image_size: (width, height) in pixels of the three that look ahead; the pictures of those at
            the sides are as wide and less high.
    """
    width, height = image_size
    out = {}
    for name, (place, yaw) in _CAMERAS.items():
        rows = round(height * _SIDE_HEIGHT) if name.startswith('SIDE') else height
        focal = _FOCAL * width
        matrix = np.array([[focal, 0, width / 2], [0, focal, rows / 2], [0, 0, 1.0]])
        pose = Pose(yaw_matrix(np.deg2rad(yaw)) @ _OPTICAL, np.array(place))
        out[name] = Camera(matrix, (width, rows), pose)
    return out


def elongation(sweep: Sweep, rng: np.random.Generator) -> np.ndarray:
    """(M,) how much longer each echo is than the pulse, 0 to 1.5.

    The spot of a beam on a slanted surface is spread along the line of sight, leaves return from
    several depths.

    Args:
        sweep: One turn.
        rng: Draws noise.
    """
    distance = np.linalg.norm(sweep.points[:, :3], axis=1)
    cosine = np.maximum(sweep.cosine, 0.02)
    spread = _DIVERGENCE * distance * np.sqrt(1 - cosine**2) / cosine / _PULSE
    leaves = np.where(sweep.material == Material.LEAF, rng.exponential(0.25, len(distance)), 0.0)
    return np.clip(spread + leaves + 0.02 * np.abs(rng.standard_normal(len(distance))), 0, 1.5)
