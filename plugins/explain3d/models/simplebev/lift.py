"""Bilinear lifting: each voxel takes the image feature that its centre projects to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn import functional as F

from ...registry import MODELS
from .grid import VoxelGrid

#: Smallest depth in metres to divide by; what is nearer than 0 is masked anyway.
_MIN_DEPTH = 1e-6


def invert_rigid(matrices: Tensor) -> Tensor:
    """Returns the inverses of (..., 4, 4) rotations with translations."""
    rotation = matrices[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(matrices)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ matrices[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def project(centres: Tensor, ref2img: Tensor) -> tuple[Tensor, Tensor]:
    """Projects points into images.

    Args:
        centres: (P, 3) points in the reference frame, metres.
        ref2img: (N, 4, 4) intrinsics times the transform from the reference frame to the camera.

    Returns:
        (N, P, 2) pixel coordinates u, v, and (N, P) depths in metres.
    """
    points = centres @ ref2img[:, :3, :3].transpose(1, 2) + ref2img[:, None, :3, 3]
    depth = points[..., 2]
    return points[..., :2] / depth.clamp_min(_MIN_DEPTH)[..., None], depth


@MODELS.register_module()
class BilinearLift(BaseModule):
    """Fills each camera's own voxel volume with its features (SimpleBEV's parameter-free lift).

    SimpleBEV's conventions are kept, since trained weights depend on them. With (u, v) the
    projection in feature pixels (image pixels times the ratio of the sizes), a voxel is seen if
    -0.5 < u < W - 0.5, likewise v, and its depth is positive. The sample is taken where
    ``grid_sample`` with ``align_corners=False`` finds 2 u / (W - 1) - 1, which is pixel
    u W / (W - 1) - 0.5, as if u were measured from the corner of the image, not from the centre of
    its first pixel.

    Args:
        grid: The voxels, as in :class:`VoxelGrid`.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self, grid: VoxelGrid | Mapping[str, Sequence[float]], init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.of(grid)

    def forward(
        self, features: Tensor, cam2img: Tensor, cam2ref: Tensor, img_shape: Sequence[int]
    ) -> Tensor:
        """Returns one volume for each camera.

        Args:
            features: (B, S, C, Hf, Wf) features of S cameras.
            cam2img: (B, S, 4, 4) intrinsics, of images of the size ``img_shape``.
            cam2ref: (B, S, 4, 4) rotation and translation from camera to reference frame.
            img_shape: Height and width of the images that went into the encoder, in pixels.

        Returns:
            (B, S, C, Z, Y, X) features, exactly zero where a camera does not see the voxel.
        """
        batch, cameras = features.shape[:2]
        flat = features.flatten(0, 1)
        # Half precision would move the projections by pixels.
        with torch.autocast(flat.device.type, enabled=False):
            sampling, seen = self._positions(flat, cam2img, cam2ref, img_shape)
            volume = _sampled(flat.to(sampling.dtype), sampling, seen)
        return volume.to(flat.dtype).view(batch, cameras, -1, *self.grid.shape)

    def _positions(
        self, flat: Tensor, cam2img: Tensor, cam2ref: Tensor, img_shape: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Returns where to sample, (N, P, 2) in [-2, 2], and whether, (N, P), for P voxels."""
        height, width = flat.shape[-2:]
        ratio = cam2img.new_tensor([width / img_shape[1], height / img_shape[0], 1.0, 1.0])
        ref2img = (cam2img * ratio[:, None] @ invert_rigid(cam2ref)).flatten(0, 1)
        pixels, depth = project(self.grid.centres(ref2img), ref2img)
        size = pixels.new_tensor([width, height])
        seen = ((pixels > -0.5) & (pixels < size - 0.5)).all(dim=-1) & (depth > 0)
        sampling = (2 * pixels / (size - 1) - 1).clamp(-2, 2)
        return sampling, seen


def _sampled(flat: Tensor, sampling: Tensor, seen: Tensor) -> Tensor:
    """Returns (N, C, P) features: sampled where a camera sees the voxel, zero elsewhere.

    A camera sees about a sixth of the voxels around it; the others are neither sampled nor masked.
    """
    volumes = flat.new_zeros(*flat.shape[:2], seen.shape[1])
    voxels = seen.nonzero()[:, 1].split(seen.sum(1).tolist())
    for i, index in enumerate(voxels):
        places = sampling[i, index][None, None]
        found = F.grid_sample(flat[i : i + 1], places, align_corners=False)
        volumes[i].index_copy_(1, index, found[0, :, 0])
    return volumes
