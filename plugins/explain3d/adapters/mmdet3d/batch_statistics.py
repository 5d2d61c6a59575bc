"""Batch normalisation's statistics of averaged weights, estimated anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, repeat
from typing import Any

from torch import nn
from torch.optim.swa_utils import update_bn

from ...core.override import override


class _Losses(nn.Module):
    """Takes a batch of a data loader through the whole detector, its heads too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training  # To be restored.

    @override
    def forward(self, data: Mapping[str, Any]) -> None:
        self.model(**self.model.data_preprocessor(data, True), mode='loss')


def refresh_batch_statistics(
    model: nn.Module, loader: Iterable[Mapping[str, Any]], epochs: int = 3
) -> None:
    """Replaces the running means and variances by those over a data set, in place.

    The mean of two networks' weights is a third network: its activations are not distributed as
    the mean of their statistics says (Izmailov et al., "Averaging Weights Leads to Wider Optima",
    2018). Nothing else changes, and the model's mode is as before.

    Args:
        model: A detector of MMDetection3D.
        loader: Its training batches, with ground truth; all count alike.
        epochs: How many times they are gone through; pipelines draw random numbers.
    """
    update_bn(chain.from_iterable(repeat(loader, epochs)), _Losses(model))
