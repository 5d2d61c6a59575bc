"""Kernels of full float32 precision, and kernels that give the same bits twice.

On NVIDIA GPUs torch lets cuDNN's convolutions round float32 operands to TF32 (10 bits of mantissa)
by default, and matrix products where the user allowed it. What is a matter of 1e-5 in float32 is
then one of 4e-4: parts that should add up to an activation, factorisations, gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_FULL = ('none', 'ieee')


@contextmanager
def full_precision_kernels(enabled: bool = True) -> Iterator[None]:
    """Context in which float32 is computed in float32: no TF32, and no bfloat16 on CPUs.

    The flags are the process's; they are put back when the last of these contexts is left, also
    after an exception. Values of other dtypes and autocast are not affected.

    Args:
        enabled: False leaves the flags as they are.
    """
    if not enabled:
        yield
        return
    if not _OPEN:
        _FOUND.update(_found())
    mine = object()
    _OPEN.append(mine)
    try:
        _forbid_reduced()
        yield
    finally:
        _OPEN.remove(mine)
        if not _OPEN:
            _put_back(_FOUND)


#: Contexts that are open, which need not be left in reverse order, and the flags before the first.
_OPEN: list[object] = []
_FOUND: dict[str, Any] = {}


def _found() -> dict[str, Any]:
    return {
        'cudnn': _cudnn_allows(),
        'matmul': _matmul_precision(),
        'each': {name: setting.fp32_precision for name, setting in _fp32_settings().items()},
    }


def _forbid_reduced() -> None:
    # The older flags first: setting them resets the newer ones.
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision('highest')
    for setting in _fp32_settings().values():
        if setting.fp32_precision not in _FULL:
            setting.fp32_precision = 'ieee'


def _put_back(found: dict[str, Any]) -> None:
    torch.backends.cudnn.allow_tf32 = found['cudnn']
    torch.set_float32_matmul_precision(found['matmul'])
    for name, setting in _fp32_settings().items():
        if setting.fp32_precision != found['each'][name]:
            setting.fp32_precision = found['each'][name]


@contextmanager
def deterministic_kernels(enabled: bool = True) -> Iterator[None]:
    """Context in which a computation gives the same bits each time, on CUDA too.

    It is ``torch.use_deterministic_algorithms(True)``, with cuDNN's search for the fastest kernel
    off. An operation without a deterministic kernel raises torch's RuntimeError, which names it.
    The flags are put back at the end. Contexts may be nested.

    On CUDA, cuBLAS needs the environment variable ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` before the
    process starts to compute. It is set here where it is missing, which is early enough if nothing
    has been computed on the GPU yet.

    Args:
        enabled: False leaves the flags as they are.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def reproducible_kernels(deterministic: bool = False, tf32: bool = False) -> Iterator[None]:
    """Context of both kinds: ``full_precision_kernels`` and ``deterministic_kernels``.

    Args:
        deterministic: Whether the same input must give the same bits.
        tf32: Whether TF32 is left as the process has it.
    """
    with ExitStack() as stack:
        stack.enter_context(full_precision_kernels(not tf32))
        stack.enter_context(deterministic_kernels(deterministic))
        yield


def kernel_settings() -> dict[str, Any]:
    """Returns the flags that are in force now, as the settings of a result keep them.

    Returns:
        ``'tf32'``: whether any float32 kernel may round to less than float32;
        ``'deterministic'``: whether torch is told to use deterministic algorithms.
    """
    reduced = [precision not in _FULL for precision in _fp32_precisions().values()]
    if not reduced:
        reduced = [_cudnn_allows(), _matmul_precision() != 'highest']
    return {
        'tf32': any(reduced),
        'deterministic': torch.are_deterministic_algorithms_enabled(),
    }


def _fp32_settings() -> dict[str, Any]:
    """Returns torch's settings of float32 precision by backend and operation, where it has them."""
    cuda, cpu = torch.backends.cudnn, torch.backends.mkldnn
    owners = {
        'cudnn.conv': (cuda, 'conv'),
        'cudnn.rnn': (cuda, 'rnn'),
        'cuda.matmul': (torch.backends.cuda, 'matmul'),
        'mkldnn.conv': (cpu, 'conv'),
        'mkldnn.rnn': (cpu, 'rnn'),
        'mkldnn.matmul': (cpu, 'matmul'),
    }
    found = {name: getattr(owner, key, None) for name, (owner, key) in owners.items()}
    return {name: s for name, s in found.items() if _has_precision(s)}


def _has_precision(setting: Any) -> bool:
    try:
        return isinstance(setting.fp32_precision, str)
    except (AttributeError, RuntimeError):
        return False


def _fp32_precisions() -> dict[str, str]:
    return {name: setting.fp32_precision for name, setting in _fp32_settings().items()}


def _cudnn_allows() -> bool:
    """Returns the older flag, which torch refuses to read where the newer ones contradict it."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        each = _fp32_precisions()
        return not (each['cudnn.conv'] == each['cudnn.rnn'] == 'tf32')


def _matmul_precision() -> str:
    """Returns the older setting, which torch refuses to read where the newer ones contradict it."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return 'highest' if _fp32_precisions()['cuda.matmul'] == 'tf32' else 'high'
