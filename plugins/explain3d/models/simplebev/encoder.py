"""The image encoder of SimpleBEV: three stages of a ResNet, features at an eighth of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import MODELS


class UpsamplingConcat(nn.Module):
    """Brings a coarse map to the size of a finer one, concatenates and convolves twice.

    Args:
        in_channels: Channels of both maps together.
        out_channels: Channels of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Returns (N, C, H, W) from coarse (N, C2, ceil(H / 2), ceil(W / 2)), fine (N, C1, H, W).

        An image whose sides are not multiples of 16 leaves half a coarse cell over, which is cut
        off: stretching it instead would shift the coarse features against the fine ones.
        """
        height, width = fine.shape[-2:]
        coarse = F.interpolate(coarse, scale_factor=2, mode='bilinear', align_corners=False)
        return self.conv(torch.cat([fine, coarse[..., :height, :width]], dim=1))


@MODELS.register_module()
class ResNetImageEncoder(BaseModule):
    """A ResNet's second and third stage, joined at stride 8, and a 1 x 1 "depth" layer.

    Args:
        backbone: Configuration of a backbone with two outputs, at strides 8 and 16.
        in_channels: Channels of these two.
        mid_channels: Channels where the two are joined; 512 in SimpleBEV.
        out_channels: Channels of the features that are lifted; 128 in SimpleBEV.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: Sequence[int] = (512, 1024),
        mid_channels: int = 512,
        out_channels: int = 128,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels = out_channels
        self.backbone = MODELS.build(backbone)
        self.upsampling = UpsamplingConcat(sum(in_channels), mid_channels)
        self.depth_layer = nn.Conv2d(mid_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns (N, C, ceil(H / 8), ceil(W / 8)) features of normalised images (N, 3, H, W)."""
        fine, coarse = self.backbone(images)
        return self.depth_layer(self.upsampling(coarse, fine))
