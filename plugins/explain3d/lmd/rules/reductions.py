"""Sums and means over dimensions: linear. Extrema: the element that was selected, frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..registry import forms, rule
from ..rows import Rows
from .views import apply_to_each, by_row

rule(*forms('cumsum', 'nansum', 'trace', 'diff', 'sum_to_size'))(apply_to_each)


@rule(*forms('sum', 'mean'))
def _sum_or_mean(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    rows = call.rows(input)
    out = call.plain()
    dim = args[0] if args else kwargs.get('dim', kwargs.get('axis'))
    keepdim = args[1] if len(args) > 1 else kwargs.get('keepdim', False)
    function = getattr(torch, call.func.__name__)
    if dim is None or dim == () or dim == []:
        dims = tuple(range(-input.dim(), 0))
    else:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(d - input.dim() if d >= 0 else d for d in dims)
    if not dims:
        return call.carry(out, rows)
    return call.carry(out, Rows(rows.ids, function(rows.stack, dims, keepdim)))


def gathered(rows: Rows, index: Tensor, dim: int) -> Rows:
    """Returns the components at ``index`` along ``dim`` of the tensor (which has dims)."""
    return Rows(
        rows.ids,
        torch.stack([row.gather(dim, index) for row in rows.stack])
        if rows.ids
        else index.new_zeros((0, *index.shape), dtype=rows.stack.dtype),
    )


@rule(*forms('max', 'min'))
def _extremum(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    other = args[0] if args else kwargs.get('other', kwargs.get('dim'))
    if isinstance(other, Tensor):
        return _elementwise_extremum(call, input, other)
    if other is None:
        return call.carry(call.plain(), _selected(call, input, None, False))
    keepdim = args[1] if len(args) > 1 else kwargs.get('keepdim', False)
    out = call.plain()
    index = call.at_operating_point('index', lambda: out.indices)
    rows = _along(call.rows(input), index, other, keepdim)
    return type(out)((call.carry(out.values, rows), out.indices))


def _along(rows: Rows, index: Tensor, dim: int, keepdim: bool) -> Rows:
    if rows.stack.dim() == 1:
        return rows
    index = index if keepdim else index.unsqueeze(dim)
    rows = gathered(rows, index, dim)
    shift = dim if dim < 0 else dim + 1
    return rows if keepdim else Rows(rows.ids, rows.stack.squeeze(shift))


def _selected(call: Call, input: Tensor, dim: int | None, keepdim: bool) -> Rows:
    name = (
        call.func.__name__.replace('a', 'arg', 1)
        if call.func.__name__.startswith('am')
        else (f'arg{call.func.__name__}')
    )
    function = getattr(torch, name)
    rows = call.rows(input)
    if dim is None:
        index = call.at_operating_point('index', lambda: function(input.detach()))
        return Rows(rows.ids, rows.stack.flatten(1)[:, index])
    index = call.at_operating_point('index', lambda: function(input.detach(), dim, keepdim))
    return _along(rows, index, dim, keepdim)


@rule(*forms('amax', 'amin'))
def _amax(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    if len(dims) == 1:
        return call.carry(call.plain(), _selected(call, input, dims[0], keepdim))
    dims = sorted(d % input.dim() for d in dims) or list(range(input.dim()))
    function = torch.argmax if call.func.__name__ == 'amax' else torch.argmin
    others = [d for d in range(input.dim()) if d not in dims]
    shape = [input.shape[d] for d in others]
    flat = input.detach().permute(*others, *dims).reshape(*shape, -1)
    index = call.at_operating_point('index', lambda: function(flat, -1, True))
    rows = call.rows(input)
    flat_rows = by_row(
        lambda row: row.permute(*others, *dims).reshape(*shape, -1).gather(-1, index)[..., 0],
        rows,
        flat[..., 0],
    )
    out = call.plain()
    return call.carry(out, Rows(rows.ids, flat_rows.stack.reshape(len(rows.ids), *out.shape)))


@rule(
    *forms('topk', 'sort', 'msort', 'kthvalue', 'median', 'nanmedian', 'mode', 'cummax', 'cummin')
)
def _selection(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = call.plain()
    if isinstance(out, Tensor):
        from ..dispatch import unknown

        raise unknown(call.operation, call.module, ' Expected the form with a dimension.')
    position = {'topk': 1, 'kthvalue': 1}.get(call.func.__name__, 0)
    default = 0 if call.func.__name__ in ('cummax', 'cummin') else -1
    dim = kwargs.get('dim', args[position] if len(args) > position else default)
    dim = default if isinstance(dim, bool) else dim
    index = call.at_operating_point('index', lambda: out.indices)
    keepdim = index.dim() == input.dim()
    rows = _along(call.rows(input), index, dim, keepdim)
    return type(out)((call.carry(out.values, rows), out.indices))


@rule(*forms('maximum', 'minimum', 'fmax', 'fmin'))
def _maximum(call: Call, input: Tensor, other: Tensor) -> Tensor:
    return _elementwise_extremum(call, input, other)


def _elementwise_extremum(call: Call, a: Tensor, b: Tensor) -> Tensor:
    smaller = 'min' in call.func.__name__
    first: Callable = torch.le if smaller else torch.ge
    mask = call.at_operating_point('mask', lambda: first(a.detach(), b.detach()))
    return call.carry(call.plain(), chosen(call, mask, a, b))


def chosen(call: Call, mask: Tensor, a: Any, b: Any) -> Rows:
    """Returns the components of where(mask, a, b)."""
    from .sums import operand

    first, second = operand(call, 'first', a), operand(call, 'second', b)
    ids = tuple(sorted({*first.ids, *second.ids}))
    ndim = max(mask.dim(), first.stack.dim() - 1, second.stack.dim() - 1)
    first, second = first.select(ids).lifted(ndim), second.select(ids).lifted(ndim)
    return Rows(ids, torch.where(mask, first, second))
