"""Six cameras, five radars and a LiDAR, placed like those of nuScenes's vehicle.

Round numbers close to the real ones. The ego frame has x forward, y left, z up and its origin on
the ground below the rear axle; cameras have x right, y down, z forward, the LiDAR x right,
y forward, z up, radars x forward, y left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import Camera
from .lidar import Lidar
from .mesh import yaw_matrix
from .radar import Radar
from .scene import Pose

# Place in the ego frame, metres, direction, degrees to the left, and focal length over the
# image's width: 65 degrees of view, 90 for the camera at the back.
_CAMERAS = {
    'CAM_FRONT': ((1.70, 0.0, 1.51), 0.0, 0.79),
    'CAM_FRONT_RIGHT': ((1.55, -0.49, 1.50), -56.0, 0.79),
    'CAM_FRONT_LEFT': ((1.52, 0.49, 1.51), 55.0, 0.79),
    'CAM_BACK': ((0.03, 0.0, 1.58), 180.0, 0.505),
    'CAM_BACK_LEFT': ((1.03, 0.48, 1.59), 108.5, 0.79),
    'CAM_BACK_RIGHT': ((1.01, -0.48, 1.56), -110.5, 0.79),
}
_RADARS = {
    'RADAR_FRONT': ((3.41, 0.0, 0.50), 0.0),
    'RADAR_FRONT_LEFT': ((2.42, 0.80, 0.78), 90.0),
    'RADAR_FRONT_RIGHT': ((2.42, -0.80, 0.77), -90.0),
    'RADAR_BACK_LEFT': ((-0.56, 0.63, 0.53), 175.0),
    'RADAR_BACK_RIGHT': ((-0.56, -0.62, 0.53), -176.0),
}
_LIDAR = (0.94, 0.0, 1.84)
_OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])  # camera axes seen from x forward
_LIDAR_AXES = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
CHANNELS = (*_CAMERAS, 'LIDAR_TOP', *_RADARS)


@dataclass
class Rig:
    """The sensors of a vehicle by channel name."""

    cameras: dict[str, Camera]
    radars: dict[str, Radar]
    lidar: Lidar

    def pose(self, channel: str) -> Pose:
        """The pose of a sensor in the ego frame."""
        if channel == 'LIDAR_TOP':
            return self.lidar.pose
        return (self.cameras.get(channel) or self.radars[channel]).pose


def hdl32e_elevations() -> np.ndarray:
    """(32,) elevations of the Velodyne HDL-32E's beams in radians, from the bottom up."""
    return np.deg2rad(-30.67 + np.arange(32) * 4 / 3)


def nuscenes_rig(image_size: tuple[int, int]) -> Rig:
    """The sensors; ``image_size`` is (width, height) in pixels."""
    width, height = image_size
    cameras = {
        name: Camera(
            np.array([[f * width, 0, 0.51 * width], [0, f * width, 0.545 * height], [0, 0, 1.0]]),
            image_size,
            Pose(yaw_matrix(np.deg2rad(yaw)) @ _OPTICAL, np.array(place)),
        )
        for name, (place, yaw, f) in _CAMERAS.items()
    }
    radars = {
        name: Radar(Pose(yaw_matrix(np.deg2rad(yaw)), np.array(place)))
        for name, (place, yaw) in _RADARS.items()
    }
    lidar = Lidar(Pose(_LIDAR_AXES, np.array(_LIDAR)), hdl32e_elevations(), columns=1085)
    return Rig(cameras, radars, lidar)
