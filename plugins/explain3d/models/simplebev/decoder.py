"""The bird's-eye network of SimpleBEV: three stages of a ResNet-18 as a U-Net."""

from __future__ import annotations

from mmdet.models.backbones.resnet import BasicBlock
from mmdet.models.layers import ResLayer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS

#: Zero at the end of each residual block lets training start from the identity.
_BLOCK_INIT = [
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=0, override=dict(name='norm2')),
]


class UpsamplingAdd(nn.Module):
    """Bilinear upsampling by 2, 1 x 1 convolution, InstanceNorm, plus the skipped map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode='bilinear', align_corners=False)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.InstanceNorm2d(out_channels)

    def forward(self, coarse: Tensor, skipped: Tensor) -> Tensor:
        """Returns (B, C, Z, X) of coarse (B, C2, ceil(Z / 2), ceil(X / 2)) and skipped (same)."""
        height, width = skipped.shape[-2:]
        coarse = self.upsample(coarse)
        return self.norm(self.conv(coarse[..., :height, :width])) + skipped


@MODELS.register_module()
class BEVUNet(BaseModule):
    """Shares the context of the bird's-eye map, down to an eighth of it and back.

    Args:
        in_channels: Channels of the fused map, and of the result.
        base_channels: Channels of the first stage, doubled in each of the next two; 64 in
            SimpleBEV.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self, in_channels: int, base_channels: int = 64, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        first, second, third = base_channels, 2 * base_channels, 4 * base_channels
        self.out_channels = in_channels
        self.first_conv = nn.Conv2d(in_channels, first, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(first, first, stride=1)
        self.layer2 = _stage(first, second, stride=2)
        self.layer3 = _stage(second, third, stride=2)
        self.up3_skip = UpsamplingAdd(third, second)
        self.up2_skip = UpsamplingAdd(second, first)
        self.up1_skip = UpsamplingAdd(first, in_channels)

    def forward(self, fused: Tensor) -> Tensor:
        """Returns (B, C, Z, X) features of the fused map (B, C, Z, X)."""
        half = self.layer1(self.relu(self.bn1(self.first_conv(fused))))
        quarter = self.layer2(half)
        x = self.up3_skip(self.layer3(quarter), quarter)
        x = self.up2_skip(x, half)
        return self.up1_skip(x, fused)


def _stage(in_channels: int, out_channels: int, stride: int) -> ResLayer:
    return ResLayer(
        block=BasicBlock,
        inplanes=in_channels,
        planes=out_channels,
        num_blocks=2,
        stride=stride,
        init_cfg=_BLOCK_INIT,
    )
