"""Heads of SimpleBEV with their losses, balanced by learned uncertainties."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import MODELS

#: Keeps a mean over nothing at zero; SimpleBEV's.
_MEAN_EPS = 1e-6


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of the values where the mask (same shape) is 1; 0 where it is nowhere."""
    return (values * mask).sum() / (mask.sum() + _MEAN_EPS)


class BEVHead(BaseModule):
    """Convolution, InstanceNorm, ReLU, 1 x 1 convolution.

    Args:
        in_channels: Channels of the decoder's map, and between the convolutions.
        out_channels: Channels of the prediction.
        loss_scale: Factor on the loss before it is weighted.
        init_cfg: As in MMEngine.
    """

    #: What ``loss`` reads from its targets besides 'segmentation' and 'valid'; None: nothing.
    target: str | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        loss_scale: float,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.loss_scale = loss_scale
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.norm = nn.InstanceNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.predictor = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, out_channels, Z, X) of features (B, C, Z, X)."""
        return self.predictor(self.relu(self.norm(self.conv(features))))

    def loss(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns named losses; a head that is not trained has none."""
        return {}


class _WeightedHead(BEVHead):
    """A head whose loss L enters as k exp(-w) L + w / 2, w learned (Kendall et al., 2018)."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.log_variance = nn.Parameter(torch.zeros(()))

    def loss(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weighted loss and the price of its weight.

        Args:
            prediction: What ``forward`` returned.
            targets: 'segmentation' and 'valid', (B, 1, Z, X) of zeros and ones, and ``target``.
        """
        factor = self.loss_scale * torch.exp(-self.log_variance)
        return {
            'loss': factor * self.error(prediction, targets),
            'loss_uncertainty': 0.5 * self.log_variance,
        }

    def error(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the loss before it is weighted."""
        raise NotImplementedError


@MODELS.register_module()
class BEVSegmentationHead(_WeightedHead):
    """Logits of "a vehicle is here"; cross entropy where the ground truth is valid.

    Args:
        in_channels: Channels of the decoder's map.
        pos_weight: Weight of vehicle cells; 2.13 in SimpleBEV.
        init_cfg: As in MMEngine.
    """

    def __init__(
        self, in_channels: int, pos_weight: float = 2.13, init_cfg: dict | None = None
    ) -> None:
        super().__init__(in_channels, out_channels=1, loss_scale=10.0, init_cfg=init_cfg)
        self.pos_weight = pos_weight

    def error(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the binary cross entropy of (B, 1, Z, X) logits."""
        weight = prediction.new_tensor(self.pos_weight)
        entropy = F.binary_cross_entropy_with_logits(
            prediction, targets['segmentation'], reduction='none', pos_weight=weight
        )
        return masked_mean(entropy, targets['valid'])


@MODELS.register_module()
class BEVCenterHead(_WeightedHead):
    """Heat map of vehicle centres in (0, 1); squared error balanced between centre and rest.

    Args:
        in_channels: Channels of the decoder's map.
        init_cfg: As in MMEngine.
    """

    target = 'center'

    def __init__(self, in_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, out_channels=1, loss_scale=0.5, init_cfg=init_cfg)
        self.sigmoid = nn.Sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Returns (B, 1, Z, X) of features (B, C, Z, X)."""
        return self.sigmoid(super().forward(features))

    def error(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean of the errors over cells above 0.5 and over those below."""
        truth = targets['center']
        squared = (prediction - truth).square()
        near = masked_mean(squared, (truth > 0.5).to(squared.dtype))
        far = masked_mean(squared, (truth < 0.5).to(squared.dtype))
        return 0.5 * (near + far)


@MODELS.register_module()
class BEVOffsetHead(_WeightedHead):
    """Offset (dx, dz) of a vehicle's cell from its centre, in cells; L1 where it is valid.

    Args:
        in_channels: Channels of the decoder's map.
        init_cfg: As in MMEngine.
    """

    target = 'offset'

    def __init__(self, in_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, out_channels=2, loss_scale=0.5, init_cfg=init_cfg)

    def error(self, prediction: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean error |dx| + |dz| of (B, 2, Z, X)."""
        distance = (prediction - targets['offset']).abs().sum(dim=1, keepdim=True)
        return masked_mean(distance, targets['segmentation'] * targets['valid'])


@MODELS.register_module()
class BEVFeatureHead(BEVHead):
    """SimpleBEV's feature output, which nothing trains; its checkpoints contain it.

    Args:
        in_channels: Channels of the decoder's map, and of the output.
        init_cfg: As in MMEngine.
    """

    def __init__(self, in_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, in_channels, loss_scale=0.0, init_cfg=init_cfg)
