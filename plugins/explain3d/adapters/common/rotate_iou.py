"""The rotated overlap of KITTI's evaluation, which both hosts compile for CUDA alone."""

from __future__ import annotations

import numpy as np
import torch

from explain3d.core.boxes import bev_intersection


def rotate_iou_eval(
    boxes: np.ndarray, query_boxes: np.ndarray, criterion: int = -1, device_id: int = 0
) -> np.ndarray:
    """Returns the overlap of bird's-eye-view boxes, as the hosts' ``rotate_iou_gpu_eval``.

    Boxes are (x, z, l, w, rotation_y) in the camera frame, metres and radians, where rotation_y
    turns x away from z: clockwise if x points right and z up. Computed in float64.

    Args:
        boxes: (N, 5) boxes; one that is not finite overlaps nothing.
        query_boxes: (K, 5) boxes.
        criterion: What the shared area is divided by. -1: the union. 0: the area of the *query*
            box. 1: the area of the box. Any other: nothing. (The stock documentation has 0 and 1
            the other way round; its kernel is called with the two exchanged.)
        device_id: Not used.

    Returns:
        (N, K) float32.
    """
    boxes, query_boxes = _finite(boxes), _finite(query_boxes)
    shared = bev_intersection(_as_lidar(boxes), _as_lidar(query_boxes)).numpy()
    area = boxes[:, 2:4].clip(min=0).prod(axis=1)[:, None]
    query_area = query_boxes[:, 2:4].clip(min=0).prod(axis=1)
    if criterion == -1:
        reference = area + query_area - shared
    elif criterion == 0:
        reference = np.broadcast_to(query_area, shared.shape)
    elif criterion == 1:
        reference = np.broadcast_to(area, shared.shape)
    else:
        reference = np.ones_like(shared)
    return np.divide(shared, reference, out=np.zeros_like(shared), where=reference > 0).astype(
        np.float32
    )


def _finite(boxes: np.ndarray) -> np.ndarray:
    """The boxes in float64; those that are not finite have no size."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    return np.where(np.isfinite(boxes).all(axis=1, keepdims=True), boxes, 0.0)


def _as_lidar(boxes: np.ndarray) -> torch.Tensor:
    """(N, 7) boxes whose x, y plane is the camera's x, z plane and whose yaw turns x to z."""
    x, z, length, width, rotation_y = torch.from_numpy(boxes).unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([x, z, zero, length, width, one, -rotation_y], dim=1)
