"""Fusion by a convolution over the concatenated maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...core.errors import InputError
from ...registry import MODELS
from ..simplebev.fuser import ConcatConvFuser


@MODELS.register_module()
class ConvFuser(ConcatConvFuser):
    """Concatenates the sensors' maps; 3 x 3 convolution, BatchNorm, ReLU, as BEVFusion's.

    Args:
        in_channels: Channels of each sensor's map, in their order.
        out_channels: Channels of the fused map.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, init_cfg: dict | None = None
    ) -> None:
        super().__init__(in_channels, out_channels, init_cfg)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns (B, out_channels, H, W) of the sensors' maps, each (B, C_m, H, W).

        Raises:
            InputError: If the maps are not of one size, or not of the channels expected.
        """
        shapes = [tuple(each.shape) for each in maps]
        channels = tuple(shape[1] for shape in shapes)
        if channels != self.in_channels or len({shape[-2:] for shape in shapes}) != 1:
            raise InputError(
                f'Expected maps of {self.in_channels} channels and one size, received {shapes}: '
                "correct in_channels, or the grid of the image branch against the LiDAR's."
            )
        return super().forward(maps)
