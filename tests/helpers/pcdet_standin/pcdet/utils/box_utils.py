"""Boxes between the LiDAR frame (centre, heading) and KITTI's camera frame (bottom, ry)."""

import numpy as np


def boxes3d_kitti_camera_to_lidar(boxes3d_camera, calib):
    location, (length, height, width) = boxes3d_camera[:, :3], boxes3d_camera[:, 3:6].T
    centre = calib.rect_to_lidar(location)
    centre[:, 2] += height / 2
    heading = -boxes3d_camera[:, 6] - np.pi / 2
    return np.column_stack([centre, length, width, height, heading])


def boxes3d_lidar_to_kitti_camera(boxes3d_lidar, calib):
    bottom = boxes3d_lidar[:, :3].copy()
    length, width, height = boxes3d_lidar[:, 3:6].T
    bottom[:, 2] -= height / 2
    turn = -boxes3d_lidar[:, 6] - np.pi / 2
    return np.column_stack([calib.lidar_to_rect(bottom), length, height, width, turn])


def boxes3d_kitti_camera_to_imageboxes(boxes3d, calib, image_shape=None):
    signs = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-1, 0) for z in (-0.5, 0.5)])
    corners = signs[None] * boxes3d[:, None, [3, 4, 5]]
    cos, sin = np.cos(boxes3d[:, 6:7]), np.sin(boxes3d[:, 6:7])
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    turned = np.stack([x * cos + z * sin, y, z * cos - x * sin], -1) + boxes3d[:, None, :3]
    pixels = calib.rect_to_img(turned.reshape(-1, 3))[0].reshape(-1, 8, 2)
    boxes = np.concatenate([pixels.min(1), pixels.max(1)], 1)
    if image_shape is not None:
        boxes = boxes.clip(0, np.array([image_shape[1], image_shape[0]] * 2) - 1)
    return boxes
