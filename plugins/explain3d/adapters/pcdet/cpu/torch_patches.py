"""What stock OpenPCDet asks of torch.cuda and torch.distributed, answered on a CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing, nn

_TENSOR_TYPES = ('Float', 'Double', 'Half', 'Int', 'Long', 'Short', 'Byte', 'Char', 'Bool')
_ABSENT = object()

# Aliases that numpy had until 1.24, and that stock OpenPCDet still uses here and there.
_REMOVED_FROM_NUMPY = {'int': int, 'float': float, 'bool': bool}


@contextmanager
def torch_without_cuda() -> Iterator[None]:
    """Answers calls for CUDA with the CPU while the context is open.

    ``.cuda()`` of tensors and modules returns the object itself; ``torch.cuda.FloatTensor`` and its
    kin make CPU tensors; ``device_count`` is the number of processes of this machine, so that
    what OpenPCDet divides by it is right; ``nccl`` becomes ``gloo``; DistributedDataParallel gets
    no devices; ``torch.load`` maps to the CPU unless told otherwise. ``numpy.int`` and its kin,
    gone since numpy 1.24, are there as well. ``torch.cuda.is_available`` stays as it is, and
    ``.to('cuda')`` still fails where there is no CUDA.
    """
    with ExitStack() as stack:
        for owner, name, value in _replacements():
            stack.enter_context(_replaced(owner, name, value))
        yield


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    yield torch.Tensor, 'cuda', _itself
    yield nn.Module, 'cuda', _itself
    for kind in _TENSOR_TYPES:
        yield torch.cuda, f'{kind}Tensor', getattr(torch, f'{kind}Tensor')
    yield torch.cuda, 'device_count', _processes_here
    yield torch.cuda, 'current_device', lambda: 0
    for name in ('set_device', 'synchronize', 'empty_cache'):
        yield torch.cuda, name, _doing_nothing()
    yield torch, 'load', _on_cpu(torch.load)
    for name, value in _REMOVED_FROM_NUMPY.items():
        if name not in vars(np):
            yield np, name, value
    # DataLoader workers that are spawned would import OpenPCDet outside of this mode.
    yield multiprocessing, 'set_start_method', _doing_nothing()
    if distributed.is_available():
        yield distributed, 'init_process_group', _with_gloo(distributed.init_process_group)
        yield nn.parallel, 'DistributedDataParallel', _without_devices()


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute, and puts back what the owner itself held, or its lack of it."""
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _itself(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self


def _doing_nothing() -> Callable:
    # A function of its own for each name: torch.compile's tables take no two names for one.
    def nothing(*args: Any, **kwargs: Any) -> None:
        return None

    return nothing


def _processes_here() -> int:
    return int(os.environ.get('LOCAL_WORLD_SIZE', '1'))


def _on_cpu(load: Callable) -> Callable:
    def load_on_cpu(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return load(f, 'cpu' if map_location is None else map_location, *args, **kwargs)

    return load_on_cpu


def _with_gloo(init: Callable) -> Callable:
    def init_with_gloo(backend: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return init('gloo' if backend == 'nccl' else backend, *args, **kwargs)

    return init_with_gloo


def _without_devices() -> type:
    class DistributedDataParallel(nn.parallel.DistributedDataParallel):
        """The stock wrapper, told to use no devices."""

        def __init__(self, module: nn.Module, *args: Any, **kwargs: Any):
            kwargs.update(device_ids=None, output_device=None)
            super().__init__(module, **kwargs)

    return DistributedDataParallel
