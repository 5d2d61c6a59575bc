"""Bias splitting in activations: who receives the bias component (Eq. 13 and C.2 of LMD)."""

from __future__ import annotations

import torch
from torch import Tensor


def bias_shares(
    rule: str, modalities: Tensor, bias: Tensor
) -> tuple[Tensor | float, Tensor | float]:
    """Returns what each modality receives of the bias component, and what the bias keeps.

    Conditions hold per element. For M > 2, where the paper defines nothing, they are extended so
    that M = 2 is the paper's: 'sum' gives the bias to the only modality of its sign if another one
    opposes it; 'ratio' gives shares |h_m| / sum |h| if all have its sign, and
    (1 - |h_m| / sum |h|) / (M - 1) if all oppose it.

    Args:
        rule: 'identity', 'uniform', 'sum' or 'ratio'.
        modalities: (M, ...) components of the modalities.
        bias: (...) component of the bias.

    Returns:
        (M, ...) shares, and (...) what is left, which add up to 1; numbers where they are equal
        everywhere.
    """
    size = modalities.shape[0]
    if rule == 'identity':
        return 0.0, 1.0
    if rule == 'uniform':
        return 1 / (size + 1), 1 / (size + 1)
    positive, negative = bias > 0, bias < 0
    if rule == 'sum':
        above, below = modalities > 0, modalities < 0
        ups, downs = above.sum(0), below.sum(0)
        gains = positive & (ups == 1) & (downs > 0)
        loses = negative & (downs == 1) & (ups > 0)
        shares = (above & gains) | (below & loses)
        return shares.to(bias.dtype), (~(gains | loses)).to(bias.dtype)
    above, below = modalities.amin(0) > 0, modalities.amax(0) < 0
    agree = (above & positive) | (below & negative)
    oppose = (above & negative) | (below & positive)
    magnitude = modalities.abs()
    # Where a condition holds no modality is zero: the division needs no epsilon there.
    share = magnitude.div_(magnitude.sum(0).clamp_min_(torch.finfo(bias.dtype).tiny))
    # agree: share; oppose: (1 - share) / (M - 1); neither: 0.
    other = oppose.to(bias.dtype).div_(size - 1)
    shares = share.mul_(agree.to(bias.dtype) - other).add_(other)
    return shares, (~(agree | oppose)).to(bias.dtype)
