"""Modules in the place of OpenPCDet's compiled extensions.

A stand-in has the functions of its extension under the same names, with the same arguments: they
write into tensors that the caller has allocated. They work only while their CPU mode lasts: what
was imported inside the mode keeps its references, and would otherwise go on silently without CUDA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from . import overlap
from .errors import CpuModeError

# Extension of OpenPCDet: the functions that stand in for its own.
EXTENSIONS: dict[str, dict[str, Callable]] = {
    'pcdet.ops.iou3d_nms.iou3d_nms_cuda': {
        'boxes_overlap_bev_gpu': overlap.boxes_overlap_bev_gpu,
        'boxes_aligned_overlap_bev_gpu': overlap.boxes_aligned_overlap_bev_gpu,
        'paired_boxes_overlap_bev_gpu': overlap.paired_boxes_overlap_bev_gpu,
        'boxes_iou_bev_gpu': overlap.boxes_iou_bev_gpu,
        'boxes_iou_bev_cpu': overlap.boxes_iou_bev_cpu,
        'boxes_aligned_iou_bev_cpu': overlap.boxes_aligned_iou_bev_cpu,
        'nms_gpu': overlap.nms_gpu,
        'nms_normal_gpu': overlap.nms_normal_gpu,
    },
    'pcdet.ops.roiaware_pool3d.roiaware_pool3d_cuda': {},
    'pcdet.ops.roipoint_pool3d.roipoint_pool3d_cuda': {},
    'pcdet.ops.pointnet2.pointnet2_stack.pointnet2_stack_cuda': {},
    'pcdet.ops.pointnet2.pointnet2_batch.pointnet2_batch_cuda': {},
    'pcdet.ops.bev_pool.bev_pool_ext': {},
    'pcdet.ops.ingroup_inds.ingroup_inds_cuda': {},
}


class StandIn(ModuleType):
    """A module in the place of one that needs CUDA.

    Args:
        name: Full name of the module it stands for.
        functions: Its functions by name.
        alive: Tells whether the mode that made it still lasts.
    """

    def __init__(self, name: str, functions: dict[str, Callable], alive: Callable[[], bool]):
        super().__init__(name, f'Stand-in of explain3d for {name} on a CPU.')
        for key, function in functions.items():
            setattr(self, key, _guarded(f'{name}.{key}', function, alive))

    def __getattr__(self, key: str) -> Any:
        if key.startswith('__'):
            raise AttributeError(key)
        offered = sorted(k for k in vars(self) if not k.startswith('__'))
        return _refused(
            f'Expected a function that the CPU mode stands in for, received {self.__name__}.{key}: '
            f'run this model on a GPU. Offered: {", ".join(offered) or "none"}.'
        )


def stand_ins(alive: Callable[[], bool]) -> Iterator[StandIn]:
    """Yields a stand-in for each compiled extension of OpenPCDet."""
    for name, functions in EXTENSIONS.items():
        yield StandIn(name, functions, alive)


def _guarded(name: str, function: Callable, alive: Callable[[], bool]) -> Callable:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not alive():
            raise CpuModeError(
                f'Expected {name} to be called within cpu_mode(), received a call after its end: '
                f'the caller was imported inside the mode. Keep all use of that model inside, or '
                f'build it anew outside.'
            )
        with torch.no_grad():
            return function(*args, **kwargs)

    return call


def _refused(message: str) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise CpuModeError(message)

    return call
