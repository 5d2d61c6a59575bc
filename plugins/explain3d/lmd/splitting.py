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
    agree = modalities.sign() * bias.sign() > 0
    oppose = modalities.sign() * bias.sign() < 0
    if rule == 'sum':
        applies = (agree.sum(0) == 1) & oppose.any(0)
        return (agree & applies).to(bias.dtype), (~applies).to(bias.dtype)
    magnitude = modalities.abs()
    # Where a condition holds no modality is zero: the division needs no epsilon there.
    ratio = magnitude / magnitude.sum(0).clamp_min(torch.finfo(bias.dtype).tiny)
    zero = torch.zeros((), dtype=bias.dtype, device=bias.device)
    shares = torch.where(agree.all(0), ratio, zero)
    shares = torch.where(oppose.all(0), (1 - ratio) / (size - 1), shares)
    return shares, (~(agree.all(0) | oppose.all(0))).to(bias.dtype)
