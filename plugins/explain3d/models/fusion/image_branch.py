"""From surround images to a bird's-eye map in the LiDAR frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor

from ...core.errors import InputError
from ...registry import MODELS
from ..simplebev.grid import VoxelGrid


@MODELS.register_module()
class ImageToBEV(BaseModule):
    """Encodes images and lifts them to the bird's eye without any depth: SimpleBEV's parts.

    No LiDAR point is used, so that this branch is the cameras and nothing else; BEVFusion's own
    image branch reads LiDAR depth. Maps are (B, C, H, W) as MMDetection3D has them: rows along y
    of the LiDAR frame, columns along x, both from the low end.

    Args:
        encoder: Configuration of the image encoder; it tells its ``out_channels``.
        grid: The voxels to be filled, ``dict(x=(low, high, cells), y=..., z=...)``, metres, LiDAR
            frame.
        lift: Configuration of the lift; its ``grid`` is filled in.
        camera_pool: Configuration of what joins the cameras' volumes.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        encoder: dict,
        grid: Mapping[str, Sequence[float]],
        lift: dict | None = None,
        camera_pool: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        # The lift's volumes are (Z, Y, X) with the height in the middle: y and z change places.
        upright = VoxelGrid.of(grid)
        self.grid = VoxelGrid(x=upright.x, y=upright.z, z=upright.y)
        self.encoder = MODELS.build(encoder)
        self.lift = MODELS.build(
            {'type': 'explain3d.BilinearLift', 'grid': self.grid, **(lift or {})}
        )
        self.camera_pool = MODELS.build({'type': 'explain3d.CameraMean', **(camera_pool or {})})

    @property
    def out_channels(self) -> int:
        """Channels of the encoder times layers of the grid."""
        return self.encoder.out_channels * self.grid.shape[1]

    def forward(self, images: Tensor, cam2img: Tensor, cam2lidar: Tensor) -> Tensor:
        """Returns the (B, C, H, W) map.

        Args:
            images: (B, S, 3, H_i, W_i), normalised.
            cam2img: (B, S, 4, 4) intrinsics of these images.
            cam2lidar: (B, S, 4, 4) from camera to LiDAR frame: rotation or mirror, and shift.

        Raises:
            InputError: If the images are not (B, S, 3, H_i, W_i).
        """
        if images.dim() != 5:
            raise InputError(f'Expected images (B, S, 3, H, W), received {tuple(images.shape)}.')
        features = self.encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        cam2grid = cam2lidar[..., [0, 2, 1, 3], :]
        return self.camera_pool(self.lift(features, cam2img, cam2grid, images.shape[-2:]))
