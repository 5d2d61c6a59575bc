"""Gradients through spconv, on a CPU and in eval mode.

Three things stand in the way of a gradient through spconv 2:

* its CPU backward asks for the current CUDA stream, which raises where there is no CUDA;
* in eval mode its implicit-GEMM algorithms (the default on a GPU) bypass the autograd function, so
  that a gradient is silently missing (spconv issues 668 and 675);
* its CPU kernels have a data race: see ``spconv_cpu``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from ...core.capture import is_sparse_convolution
from ...core.session import overridden
from .spconv_cpu import replace_cpu_kernels


def _no_stream() -> int:
    """Stands in for ``get_current_stream`` without CUDA; the CPU kernels do not read its result."""
    return 0


def ensure_cpu_backward() -> bool:
    """Makes spconv's backward work where torch has no CUDA; training needs it as well.

    Replaces ``get_current_stream`` in ``spconv.pytorch.ops`` where there is no CUDA, and the two
    convolution functions for tensors on the CPU (``spconv_cpu.replace_cpu_kernels``). Calling it
    again changes nothing; without spconv 2 nothing is done at all.

    Returns:
        Whether the replacement of ``get_current_stream`` is in force.
    """
    if importlib.util.find_spec('spconv') is None:
        return False
    try:
        ops = importlib.import_module('spconv.pytorch.ops')
    except ImportError:  # spconv 1, or a build that does not fit the installed torch
        return False
    replace_cpu_kernels(ops)
    if torch.cuda.is_available():
        return False
    ops.get_current_stream = _no_stream
    return True


@contextmanager
def differentiable_sparse_convolutions(model: nn.Module) -> Iterator[None]:
    """Switches ``.training`` on for the sparse convolutions alone, and back at the end.

    That is the flag by which spconv chooses between its autograd function and its inference
    kernel. A sparse convolution has no dropout and no statistics: its output stays the same, and
    the batch normalisations around it stay in eval mode.

    Their weights are constants meanwhile: spconv's backward does not ask whether their gradient is
    wanted, and computing it (``spconv_cpu``) takes as long as that of the features.

    Args:
        model: Any module tree; without sparse convolutions nothing happens.
    """
    convolutions = [m for m in model.modules() if is_sparse_convolution(m)]
    modes = [m.training for m in convolutions]
    with ExitStack() as stack:
        for module in convolutions:
            # The backward pass comes later, when the parameter requires a gradient again.
            stack.enter_context(overridden(module, 'weight', module.weight.detach()))
        try:
            for module in convolutions:
                module.training = True
            yield
        finally:
            for module, mode in zip(convolutions, modes, strict=True):
                module.training = mode
