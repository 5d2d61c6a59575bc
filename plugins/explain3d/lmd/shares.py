"""How much of an activation each component makes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .components import Components


def shares(components: Components) -> Tensor:
    """Returns the share of each component: sum |h_m| / sum over all components of it.

    Signs are dropped: two components that cancel out have a half each, and not nothing.

    Args:
        components: Of one activation, with or without a batch dimension.

    Returns:
        (M + 1,) float64 that adds up to 1; NaN if the activation has no component at all.
    """
    sums = components.parts.detach().double().abs().flatten(1).sum(1)
    return sums / sums.sum()


def energy(components: Components) -> Tensor | None:
    """Returns where each component lies in a map: the sum of |h_m| over the channels.

    Args:
        components: Parts (M + 1, C, Z, X), without a batch dimension.

    Returns:
        (M + 1, Z, X) float32, or None if the activation is no map.
    """
    parts = components.parts.detach()
    return parts.float().abs().sum(1) if parts.dim() == 4 else None


def mean_parts(components: Components, region: Tensor) -> Tensor:
    """Returns the mean of each component in a region of a map, signed.

    Args:
        components: Parts (M + 1, C, Z, X).
        region: (Z, X) bool.

    Returns:
        (M + 1,) float64 whose sum is the mean output there; NaN for an empty region.
    """
    return components.parts.detach().double()[..., region].flatten(1).mean(1)


def mean_shares(frames: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Averages the shares of each layer over frames: (M + 1,), NaN left out."""
    layers = dict.fromkeys(name for frame in frames for name in frame)
    return {name: torch.stack([f[name] for f in frames if name in f]).nanmean(0) for name in layers}
