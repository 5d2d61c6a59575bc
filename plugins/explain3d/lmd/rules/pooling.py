"""Pooling and sampling: averages are linear, maxima keep the element that was selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..call import Call
from ..dispatch import unknown
from ..registry import rule
from ..rows import Rows
from .linear import as_batch

_AVERAGES = {
    1: (F.avg_pool1d, F.adaptive_avg_pool1d),
    2: (F.avg_pool2d, F.adaptive_avg_pool2d, torch._C._nn.avg_pool2d),
    3: (F.avg_pool3d, F.adaptive_avg_pool3d, torch._C._nn.avg_pool3d),
}


def _averaged(dim: int) -> Callable:
    def apply(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows = call.rows(input)
        out = call.plain()
        if not rows.ids:
            return call.carry(out, Rows((), out[None][:0]))
        batched = input.dim() == dim + 2
        stack = as_batch(lambda x: call.func(x, *args, **kwargs), rows.stack, batched)
        return call.carry(out, Rows(rows.ids, stack))

    return apply


for _dim, _functions in _AVERAGES.items():
    rule(*_functions, getattr(torch, f'adaptive_avg_pool{_dim}d', _functions[0]))(_averaged(_dim))


def _maximal(dim: int, indexed: Callable) -> Callable:
    """Returns the rule of a max pooling; ``indexed`` gives values and flat indices."""

    def apply(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs = {k: v for k, v in kwargs.items() if k != 'return_indices'}
        index = call.at_operating_point('index', lambda: indexed(input.detach(), *args, **kwargs))
        rows = call.rows(input)
        start = rows.stack.dim() - dim
        flat = index.flatten(-dim).expand(len(rows.ids), *index.flatten(-dim).shape)
        picked = rows.stack.flatten(start).gather(-1, flat)
        rows = Rows(rows.ids, picked.unflatten(-1, index.shape[-dim:]))
        out = call.plain()
        if isinstance(out, Tensor):
            return call.carry(out, rows)
        return (call.carry(out[0], rows), *out[1:])

    return apply


def _max_pool_index(dim: int) -> Callable:
    function = getattr(F, f'max_pool{dim}d_with_indices')

    def index(
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        stride = None if stride == [] or stride == () else stride
        return function(x, kernel_size, stride, padding, dilation, ceil_mode)[1]

    return index


def _adaptive_index(dim: int) -> Callable:
    function = getattr(F, f'adaptive_max_pool{dim}d_with_indices')

    def index(x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        return function(x, output_size)[1]

    return index


for _dim in (1, 2, 3):
    for _name, _index in (('max_pool', _max_pool_index), ('adaptive_max_pool', _adaptive_index)):
        _keys = [
            getattr(owner, f'{prefix}{_name}{_dim}d{suffix}')
            for owner in (F, torch, torch._C._nn)
            for prefix in ('', '_')
            for suffix in ('', '_with_indices')
            if hasattr(owner, f'{prefix}{_name}{_dim}d{suffix}')
        ]
        rule(*_keys)(_maximal(_dim, _index(_dim)))


@rule(F.interpolate)
def _interpolate(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    rows = call.rows(input)
    out = call.plain()
    if not rows.ids:
        return call.carry(out, Rows((), out[None][:0]))
    return call.carry(
        out, Rows(rows.ids, as_batch(lambda x: F.interpolate(x, *args, **kwargs), rows.stack))
    )


@rule(F.grid_sample, torch.grid_sampler)
def _grid_sample(call: Call, input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not call.is_carried(input):
        raise unknown(call.operation, call.module, ' Only its positions are decomposed.')
    grid = call.constants('grid', grid.detach())
    rows = call.rows(input)
    out = call.plain()
    if not rows.ids:
        return call.carry(out, Rows((), out[None][:0]))

    def sample(x: Tensor) -> Tensor:
        repeats = x.shape[0] // max(grid.shape[0], 1)
        return call.func(x, grid.repeat(repeats, *[1] * (grid.dim() - 1)), *args, **kwargs)

    return call.carry(out, Rows(rows.ids, as_batch(sample, rows.stack)))
