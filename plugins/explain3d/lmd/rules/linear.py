"""Convolutions and linear layers: each component is mapped, the layer's bias goes to the bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..call import Call
from ..dispatch import unknown
from ..registry import rule
from ..rows import Rows, total

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)


def as_batch(function: Callable[[Tensor], Tensor], stack: Tensor, batched: bool = True) -> Tensor:
    """Applies a function of a batch to all components in one call.

    Args:
        function: Maps (N, ...) to (N, ...), each element of the batch by itself.
        stack: (n, B, ...) components, or (n, ...) if not ``batched``.
        batched: Whether the tensor itself has a batch dimension.

    Returns:
        (n, B, ...) or (n, ...).
    """
    if not batched:
        return function(stack)
    n, batch = stack.shape[:2]
    if n == 1:
        return function(stack[0])[None]
    return function(stack.flatten(0, 1)).unflatten(0, (n, batch))


def split_by_channels(
    pieces: list[Rows], dim: int, apply: Callable[[Rows, int, int], Tensor]
) -> Rows:
    """Adds up what ``apply(piece, first channel, channels)`` gives for slices of channels.

    After a concatenation each sensor then pays for its own channels only.
    """
    results, start = [], 0
    for piece in pieces:
        size = piece.stack.shape[dim]
        if piece.ids or len(pieces) == 1:
            results.append(Rows(piece.ids, apply(piece, start, size)))
        start += size
    return total(results)


def plain_weight(call: Call, weight: Tensor) -> Tensor:
    """Returns the weight of a layer; one that is decomposed is frozen (a product of two).

    Raises:
        UnknownOperationError: If only the weight is decomposed.
    """
    return call.constants('weight', weight.detach()) if call.is_carried(weight) else weight


def _convolve(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    channels: int,
    function: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Applies a convolution whose weight has the input's channels in dimension ``channels``."""
    if not call.is_carried(input):
        raise unknown(call.operation, call.module, ' Only its weight is decomposed.')
    dim = weight.dim() - 2
    batched, weight = input.dim() == weight.dim(), plain_weight(call, weight)
    channel_dim = input.dim() - dim - 1
    pieces = call.pieces(input, channel_dim)
    if weight.shape[channels] != input.shape[channel_dim] and channels == 1:
        pieces = [call.rows(input)]  # Grouped: slices of channels do not map to slices of weight.

    def apply(piece: Rows, start: int, size: int) -> Tensor:
        part = weight if len(pieces) == 1 else weight.narrow(channels, start, size)
        return as_batch(lambda x: function(x, part), piece.stack, batched)

    rows = split_by_channels(pieces, 1 + channel_dim, apply)
    out = call.plain()
    return call.carry(out, _with_bias(call, rows, bias, dim))


def _with_bias(call: Call, rows: Rows, bias: Tensor | None, dim: int) -> Rows:
    if bias is None:
        return rows
    bias = call.constants('bias', bias.detach()) if call.is_carried(bias) else bias
    return call.constant(rows, lambda: bias.to(rows.stack.dtype).reshape(-1, *[1] * dim))


@rule(*_CONVOLUTIONS)
def _convolution(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    return _convolve(
        call, input, weight, bias, 1, lambda x, w: call.func(x, w, None, *args, **kwargs)
    )


@rule(*_TRANSPOSED)
def _transposed_convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    if groups > 1 and call.is_carried(input):
        input._twin.settle()

    def function(x: Tensor, w: Tensor) -> Tensor:
        return call.func(x, w, None, stride, padding, output_padding, groups, dilation)

    return _convolve(call, input, weight, bias, 0, function)


@rule(F.linear)
def _linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not call.is_carried(input):
        raise unknown(call.operation, call.module, ' Only its weight is decomposed.')
    weight = plain_weight(call, weight)
    pieces = call.pieces(input, -1)

    def apply(piece: Rows, start: int, size: int) -> Tensor:
        part = weight if len(pieces) == 1 else weight.narrow(-1, start, size)
        return F.linear(piece.stack, part)

    rows = split_by_channels(pieces, -1, apply)
    return call.carry(call.plain(), _with_bias(call, rows, bias, 0))
