"""Tensors on their way to the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
