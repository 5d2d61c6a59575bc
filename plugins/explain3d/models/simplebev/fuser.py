"""From volumes and maps of single sensors to one bird's-eye map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS

#: Added to the number of cameras that see a voxel; SimpleBEV's, and part of what it computes.
_COUNT_EPS = 1e-6


@MODELS.register_module()
class CameraMean(BaseModule):
    """Averages the volumes of the cameras that see a voxel; heights become channels.

    A feature that is exactly zero counts as not seen, as in SimpleBEV. Plain tensor operations
    only: seeded at its input, a decomposition tells the cameras apart.
    """

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns (B, C * Y, Z, X), channel c * Y + y, of volumes (B, S, C, Z, Y, X)."""
        count = (volumes != 0).to(volumes.dtype).sum(dim=1)
        mean = volumes.sum(dim=1) / (count + _COUNT_EPS)
        return mean.permute(0, 1, 3, 2, 4).flatten(1, 2)


@MODELS.register_module()
class ConcatConvFuser(BaseModule):
    """Concatenates the maps of the sensors; 3 x 3 convolution, InstanceNorm, GELU.

    Args:
        in_channels: Channels of each sensor's map, in their order.
        out_channels: Channels of the fused map.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = tuple(in_channels)
        self.out_channels = out_channels
        self.conv = nn.Conv2d(sum(in_channels), out_channels, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(out_channels)
        self.act = nn.GELU()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns (B, out_channels, Z, X) of the sensors' maps, each (B, C_m, Z, X)."""
        return self.act(self.norm(self.conv(torch.cat(list(maps), dim=1))))
