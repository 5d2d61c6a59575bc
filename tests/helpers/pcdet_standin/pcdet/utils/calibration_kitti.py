"""KITTI's calibration: LiDAR, rectified camera, image."""

from pathlib import Path

import numpy as np


class Calibration:
    def __init__(self, calib_file):
        rows = {}
        for line in Path(calib_file).read_text().splitlines():
            name, _, numbers = line.partition(':')
            rows[name] = np.array(numbers.split(), dtype=np.float32)
        self.P2 = rows['P2'].reshape(3, 4)
        self.R0 = rows['R0_rect'].reshape(3, 3)
        self.V2C = rows['Tr_velo_to_cam'].reshape(3, 4)

    def lidar_to_rect(self, pts_lidar):
        return (pts_lidar @ self.V2C[:, :3].T + self.V2C[:, 3]) @ self.R0.T

    def rect_to_lidar(self, pts_rect):
        inverse = np.linalg.inv(self.R0 @ self.V2C[:, :3])
        return (pts_rect - self.R0 @ self.V2C[:, 3]) @ inverse.T

    def rect_to_img(self, pts_rect):
        projected = pts_rect @ self.P2[:, :3].T + self.P2[:, 3]
        return projected[:, :2] / projected[:, 2:], projected[:, 2] - self.P2[2, 3]

    def lidar_to_img(self, pts_lidar):
        return self.rect_to_img(self.lidar_to_rect(pts_lidar))
