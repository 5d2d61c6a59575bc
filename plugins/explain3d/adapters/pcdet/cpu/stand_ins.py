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

from . import (
    bev_pool,
    grouping,
    in_boxes,
    ingroup,
    neighbours,
    overlap,
    roiaware,
    sampling,
    vector_pool,
)
from .errors import CpuModeError


def _by_name(*functions: Callable) -> dict[str, Callable]:
    return {function.__name__: function for function in functions}


# Extension of OpenPCDet: the functions that stand in for its own, by their names.
EXTENSIONS: dict[str, dict[str, Callable]] = {
    'pcdet.ops.iou3d_nms.iou3d_nms_cuda': _by_name(
        overlap.boxes_overlap_bev_gpu,
        overlap.boxes_aligned_overlap_bev_gpu,
        overlap.paired_boxes_overlap_bev_gpu,
        overlap.boxes_iou_bev_gpu,
        overlap.boxes_iou_bev_cpu,
        overlap.boxes_aligned_iou_bev_cpu,
        overlap.nms_gpu,
        overlap.nms_normal_gpu,
    ),
    'pcdet.ops.roiaware_pool3d.roiaware_pool3d_cuda': _by_name(
        roiaware.forward,
        roiaware.backward,
        in_boxes.points_in_boxes_gpu,
        in_boxes.points_in_boxes_cpu,
    ),
    'pcdet.ops.pointnet2.pointnet2_stack.pointnet2_stack_cuda': _by_name(
        neighbours.ball_query_wrapper,
        neighbours.voxel_query_wrapper,
        neighbours.three_nn_wrapper,
        grouping.group_points_wrapper,
        grouping.group_points_grad_wrapper,
        grouping.three_interpolate_wrapper,
        grouping.three_interpolate_grad_wrapper,
        sampling.farthest_point_sampling_wrapper,
        sampling.stack_farthest_point_sampling_wrapper,
        vector_pool.query_stacked_local_neighbor_idxs_wrapper_stack,
        vector_pool.query_three_nn_by_stacked_local_idxs_wrapper_stack,
        vector_pool.vector_pool_wrapper,
        vector_pool.vector_pool_grad_wrapper,
    ),
    'pcdet.ops.ingroup_inds.ingroup_inds_cuda': _by_name(ingroup.forward),
    'pcdet.ops.bev_pool.bev_pool_ext': _by_name(
        bev_pool.bev_pool_forward, bev_pool.bev_pool_backward
    ),
    # Imported, but without stand-ins: PointRCNN.
    'pcdet.ops.roipoint_pool3d.roipoint_pool3d_cuda': {},
    'pcdet.ops.pointnet2.pointnet2_batch.pointnet2_batch_cuda': {},
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
