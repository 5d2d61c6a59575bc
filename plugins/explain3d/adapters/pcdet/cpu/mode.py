"""The CPU mode itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from ...common.rotate_iou import rotate_iou_eval
from .finders import importable
from .packages import imports, refusing_modules
from .scatter import scatter_max, scatter_mean
from .stand_ins import stand_ins
from .torch_patches import torch_without_cuda

# Evaluations that compile a CUDA kernel when they are imported.
_ROTATE_IOU = (
    'pcdet.datasets.kitti.kitti_object_eval_python.rotate_iou',
    'pcdet.datasets.once.once_eval.iou_utils',
)

_running = False


@contextmanager
def cpu_mode() -> Iterator[None]:
    """Lets the Python parts of a stock OpenPCDet run without CUDA while the context is open.

    Put OpenPCDet on ``sys.path`` and import it inside::

        with cpu_mode():
            from pcdet.models import build_network
            ...

    It needs neither CUDA nor the compiled operators: stand-ins are imported in their places
    (``stand_ins.EXTENSIONS``), and torch answers calls for CUDA with the CPU
    (``torch_without_cuda``). It is one for the whole process, not for a thread; a context within
    itself does nothing.

    When it ends, also by an exception, torch is as it was, and ``sys.modules`` holds of OpenPCDet
    what it held before: modules imported inside are forgotten, modules imported before are hidden
    while it lasts. A model built inside belongs to it: its stand-ins raise ``CpuModeError`` once
    the mode has ended. Results (tensors, arrays, files) are not affected.

    Raises:
        MissingPackageError: While it lasts, by an import of a package that OpenPCDet needs and
            that is not installed.
    """
    global _running
    if _running:
        yield
        return
    over = False
    modules = [*stand_ins(lambda: not over), *_functional_modules(), *refusing_modules()]
    _running = True
    try:
        with importable(modules), torch_without_cuda():
            yield
    finally:
        over, _running = True, False


def _functional_modules() -> Iterator[ModuleType]:
    """Stand-ins that need no end: what they offer is right outside of the mode as well."""
    for name in _ROTATE_IOU:
        yield _module(name, rotate_iou_gpu_eval=rotate_iou_eval)
    if not imports('torch_scatter'):
        yield _module('torch_scatter', scatter_mean=scatter_mean, scatter_max=scatter_max)


def _module(name: str, **functions: Callable) -> ModuleType:
    module = ModuleType(name, f'Stand-in of explain3d for {name} on a CPU.')
    vars(module).update(functions)
    return module
