"""Tensors on their way to the CPU, and constants on their way to a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor


@contextmanager
def to_cpu() -> Iterator[Callable[[Tensor], Tensor]]:
    """Copies tensors to the CPU, without their graphs, and waits for all of them at the end.

    Copies from a GPU go to pinned memory one behind the other; what they hold counts only once
    the context is left. A tensor of the CPU is handed on as it is.

    Yields:
        What copies one tensor.
    """
    streams = {}

    def copy(value: Tensor) -> Tensor:
        value = value.detach()
        if value.device.type != 'cuda':
            return value.cpu()
        streams[value.device] = torch.cuda.current_stream(value.device)
        pinned = torch.empty_like(value, device='cpu', pin_memory=True)
        return pinned.copy_(value, non_blocking=True)

    try:
        yield copy
    finally:
        for stream in streams.values():
            stream.synchronize()


#: Numbers, or tuples of as many numbers each.
Numbers = tuple[float, ...] | tuple[tuple[float, ...], ...]


def constant(
    values: Numbers, device: torch.device | str, dtype: torch.dtype | None = None
) -> Tensor:
    """Returns a tensor of some numbers, which is copied to a device once.

    Each copy of numbers to a GPU makes the host wait for it.

    Args:
        values: Numbers, or tuples of as many numbers each.
        device: Where the tensor is to be.
        dtype: Of the tensor; None: int64 or float32, as the numbers are.

    Returns:
        A tensor that others have as well: it must not be written to.
    """
    device = torch.device(device)
    if device.type != 'cuda':
        return torch.tensor(values, dtype=dtype, device=device)
    return _kept(values, device, dtype)


@lru_cache(maxsize=512)
def _kept(values: Numbers, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    with torch.inference_mode(False):  # Its tensors cannot be part of a later graph.
        return torch.tensor(values, dtype=dtype, device=device)
