"""The normalisation of maps (Eq. 7 of FFAM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import InputError


def min_max(maps: Tensor) -> Tensor:
    """Scales each map to [0, 1] along its last axis: the operation Phi of Eq. 7 of FFAM.

    A constant map says nothing about where to look, and 0/0 is what the formula gives for it: it
    becomes zeros. This includes a map of a single value.

    Args:
        maps: (..., M) maps, finite.

    Returns:
        (..., M) maps whose smallest value is 0 and whose largest is 1, or zeros where constant.

    Raises:
        InputError: If a value is NaN or infinite.
    """
    require_finite(maps, 'map')
    if maps.numel() == 0:
        return maps.clone()
    lowest, highest = maps.amin(dim=-1, keepdim=True), maps.amax(dim=-1, keepdim=True)
    # Halves, where the difference of the ends would leave the dtype's range.
    half = torch.where((highest - lowest).isinf(), 0.5, 1.0).to(maps.dtype)
    shifted = maps * half - lowest * half
    largest = shifted.amax(dim=-1, keepdim=True)
    return shifted / largest.masked_fill(largest == 0, 1)


def require_finite(values: Tensor, what: str) -> None:
    """Raises an error that counts the values of ``values`` that are NaN or infinite.

    Raises:
        InputError: If there are any.
    """
    finite = torch.isfinite(values)
    if not finite.all():
        bad = int((~finite).sum())
        raise InputError(
            f'Expected a finite {what}, received {bad} of {values.numel()} values that are NaN or '
            f'infinite: look for an overflow (half precision, a diverged checkpoint) where the '
            f'{what} comes from.'
        )


def require_all_finite(tensors: Sequence[Tensor], what: str) -> None:
    """Does the same for several tensors of one device, in one wait for it.

    Args:
        tensors: The tensors.
        what: What each of them is, for the message.

    Raises:
        InputError: If a value of one is NaN or infinite.
    """
    if tensors and not torch.stack([torch.isfinite(part).all() for part in tensors]).all():
        for part in tensors:
            require_finite(part, what)


def full_precision(values: Tensor) -> Tensor:
    """Returns half-precision values as float32, and all others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
