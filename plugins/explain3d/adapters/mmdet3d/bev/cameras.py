"""The surround cameras: loading, resizing, cropping."""

from __future__ import annotations

import random
from collections.abc import Sequence

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from explain3d.core.errors import InputError
from explain3d.registry import TRANSFORMS

from ....core.override import override
from .geometry import rigid_inverse

CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)


@TRANSFORMS.register_module()
class LoadSurroundCameras(BaseTransform):
    """Loads the cameras' images and where they stood.

    Reads MMDetection3D's ``images``. Writes ``img``: S arrays (H, W, 3) uint8, BGR; ``cam_names``;
    ``cam2img`` (S, 4, 4); ``cam2ego`` (S, 4, 4) to the ego frame of the LiDAR keyframe.

    Args:
        cameras: Which, in this order.
        compensate: Count in how the vehicle moved between LiDAR keyframe and image, where the
            info file tells (``lidar2cam``). SimpleBEV's authors use the calibration alone.
    """

    def __init__(self, cameras: Sequence[str] = CAMERAS, compensate: bool = True) -> None:
        self.cameras = tuple(cameras)
        self.compensate = compensate

    @override
    def transform(self, results: dict) -> dict:
        """Adds ``img``, ``img_path``, ``cam_names``, ``cam2img``, ``cam2ego``."""
        missing = [name for name in self.cameras if name not in results['images']]
        if missing:
            raise InputError(
                f'Expected images of {self.cameras}, received {sorted(results["images"])}: '
                f'set cameras of LoadSurroundCameras to what there is.'
            )
        images = [results['images'][name] for name in self.cameras]
        results['cam_names'] = self.cameras
        results['img_path'] = [image['img_path'] for image in images]
        results['img'] = [mmcv.imfrombytes(get(path)) for path in results['img_path']]
        results['cam2img'] = np.stack([_intrinsics(image['cam2img']) for image in images])
        results['cam2ego'] = np.stack([self._pose(image, results) for image in images])
        return results

    def _pose(self, image: dict, results: dict) -> np.ndarray:
        if not self.compensate or 'lidar2cam' not in image:
            return np.asarray(image['cam2ego'], np.float64)
        lidar2ego = np.asarray(results['lidar_points']['lidar2ego'], np.float64)
        return lidar2ego @ rigid_inverse(np.asarray(image['lidar2cam'], np.float64))


@TRANSFORMS.register_module()
class ResizeCropCameras(BaseTransform):
    """Resizes and crops each image, and its intrinsics with it.

    As in the literature an image is resized to ``scale`` times ``size`` (its aspect ratio may
    change) and ``size`` is cut out, in the middle up to a random shift; what lies outside is black.
    Intrinsics scale with the image and their principal point moves with the crop.

    Args:
        size: (height, width) of the result, pixels.
        scale: (low, high), drawn for each camera of each sample; 1 and 1 for testing.
        shift: Largest random shift of the crop, pixels. SimpleBEV's authors train with scale
            (0.8, 1.2) and a shift of a fifth of the height.
        interpolation: mmcv's name; ``area`` for shrinking.
        backend: ``cv2`` or ``pillow``; the authors' is ``pillow`` with ``bicubic``.
    """

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (1.0, 1.0),
        shift: int = 0,
        interpolation: str = 'area',
        backend: str = 'cv2',
    ) -> None:
        self.size = tuple(size)
        self.scale = tuple(scale)
        self.shift = shift
        self.how = dict(interpolation=interpolation, backend=backend)

    @override
    def transform(self, results: dict) -> dict:
        """Changes ``img`` and ``cam2img``; adds ``img_shape`` (height, width)."""
        pairs = [
            self._one(image, matrix)
            for image, matrix in zip(results['img'], results['cam2img'], strict=True)
        ]
        results['img'] = [image for image, _ in pairs]
        results['cam2img'] = np.stack([matrix for _, matrix in pairs])
        results['img_shape'] = self.size
        return results

    def _one(self, image: np.ndarray, cam2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (height, width), scale = self.size, random.uniform(*self.scale)
        new_w, new_h = int(width * scale), int(height * scale)
        left, top = ((new - old) // 2 for new, old in ((new_w, width), (new_h, height)))
        if self.shift:
            left += random.randint(-self.shift, self.shift)
            top += random.randint(-self.shift, self.shift)
        factors = np.diag([new_w / image.shape[1], new_h / image.shape[0], 1.0, 1.0])
        cam2img = factors @ cam2img
        cam2img[:2, 2] -= left, top
        resized = mmcv.imresize(image, (new_w, new_h), **self.how)
        if (left, top, new_w, new_h) == (0, 0, width, height):
            return resized, cam2img
        box = np.array([left, top, left + width - 1, top + height - 1])
        return _crop(resized, box), cam2img


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Cuts (left, top, right, bottom), inclusive, out of an image; black where there is none."""
    left, top, right, bottom = box
    height, width = image.shape[:2]
    out = np.zeros((bottom - top + 1, right - left + 1, image.shape[2]), image.dtype)
    rows = slice(max(top, 0), max(min(bottom + 1, height), 0))
    columns = slice(max(left, 0), max(min(right + 1, width), 0))
    part = image[rows, columns]
    y, x = rows.start - top, columns.start - left
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def _intrinsics(matrix: Sequence) -> np.ndarray:
    full = np.eye(4)
    full[:3, :3] = np.asarray(matrix)[:3, :3]
    return full
