"""Randomised weights: an explanation that does not notice them explains nothing of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def shuffled_weights(module: nn.Module, seed: int = 0) -> Iterator[None]:
    """Shuffles the values of each parameter of ``module`` while the context lasts.

    Scale and distribution of the weights stay, what was learnt goes. Afterwards, also after an
    exception, the values are back, bit for bit. The global random state is not used.

    Args:
        module: Any module.
        seed: Of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = list(module.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter in parameters:
                order = torch.randperm(parameter.numel(), generator=generator)
                flat = parameter.reshape(-1)[order.to(parameter.device)]
                parameter.copy_(flat.view_as(parameter))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
