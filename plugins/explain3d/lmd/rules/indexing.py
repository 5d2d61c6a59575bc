"""Selecting, writing and masking: indices and masks are constants, frozen when recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..registry import forms, rule
from ..rows import Rows
from .reductions import chosen
from .sums import operand
from .views import apply_to_each, by_row

rule(*forms('gather', 'index_select', 'masked_select', 'select_copy', 'slice_copy', 'narrow_copy'))(
    apply_to_each
)


@rule(Tensor.__getitem__)
def _getitem(call: Call, input: Tensor, index: Any) -> Any:
    if not call.is_carried(input):
        return call.plain()
    out = call.plain()
    base = call.aliases(out)
    if base is not None:
        return call.carry_view(out, base)
    index = call.constants('index', index)
    return call.carry(out, by_row(lambda row: row[index], call.rows(input), out))


def _write(
    call: Call, target: Tensor, source: Rows, write: Callable[[Tensor, Tensor], Any]
) -> Tensor | None:
    """Writes components into those of ``target``, and runs the operation itself."""
    if call.is_carried(target):
        out = call.plain()
        rows = target._twin.writable(target, source.ids)
        for row, number in enumerate(rows.ids):
            part = source.select((number,)).stack[0]
            write(rows.stack[row], part)
        call.finished(target, False)
        return out
    raise AssertionError('the target of an in-place operation is carried')


def _lent(rows: Rows, target: Tensor) -> Rows:
    """Returns components in memory of their own, in the type of ``target``."""
    return Rows(rows.ids, rows.stack.to(target.dtype, copy=True))


@rule(Tensor.__setitem__)
def _setitem(call: Call, target: Tensor, index: Any, value: Any) -> None:
    index = call.constants('index', index)
    source = _lent(operand(call, 'value', value), target)
    _write(call, target, source, lambda row, part: row.__setitem__(index, part))


def _copy_of(call: Call, target: Tensor) -> Tensor:
    rows = operand(call, 'target', target)
    return call.carry(target.detach().clone(), Rows(rows.ids, rows.stack.clone()))


def _is_inplace(call: Call) -> bool:
    return call.func.__name__.endswith('_')


def _writing(*names: str) -> Callable[[Callable], Callable]:
    """Registers ``write(row, part, *rest)`` for an operation in and out of place.

    The decorated function splits the arguments: it returns the value that is written, and a
    function of a component of the target and of the value.
    """

    def decorate(parse: Callable) -> Callable:
        @rule(*forms(*names))
        def apply(call: Call, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            args = [
                a if call.is_carried(a) else call.constants(str(i), a) for i, a in enumerate(args)
            ]
            kwargs = {
                k: a if call.is_carried(a) else call.constants(k, a) for k, a in kwargs.items()
            }
            value, write = parse(call, *args, **kwargs)
            source = _lent(operand(call, 'value', value), target)
            if _is_inplace(call):
                return _write(call, target, source, write)
            rows = operand(call, 'target', target)
            ids = tuple(sorted({*rows.ids, *source.ids}))
            rows = rows.select(ids)
            stack = rows.stack.clone(memory_format=torch.contiguous_format)
            for row, number in enumerate(ids):
                write(stack[row], source.select((number,)).stack[0])
            return call.carry(call.plain(), Rows(ids, stack))

        return parse

    return decorate


@_writing('index_put')
def _index_put(call: Call, indices: Any, values: Any, accumulate: bool = False) -> tuple:
    return values, lambda row, part: row.index_put_(indices, part, accumulate)


@_writing('index_copy')
def _index_copy(call: Call, dim: int, index: Tensor, source: Any) -> tuple:
    return source, lambda row, part: row.index_copy_(dim, index, part)


@_writing('index_add')
def _index_add(call: Call, dim: int, index: Tensor, source: Any, *, alpha: float = 1) -> tuple:
    return source, lambda row, part: row.index_add_(dim, index, part, alpha=alpha)


@_writing('index_fill')
def _index_fill(call: Call, dim: int, index: Tensor, value: Any) -> tuple:
    return value, lambda row, part: row.index_fill_(dim, index, part)


@_writing('scatter')
def _scatter(
    call: Call, dim: int, index: Tensor, src: Any = None, value: Any = None, reduce: Any = None
) -> tuple:
    if reduce is not None:
        from ..dispatch import unknown

        raise unknown(call.operation, call.module, ' It reduces: use scatter_add.')
    value = src if value is None else value

    def write(row: Tensor, part: Tensor) -> None:
        row.scatter_(dim, index, part.expand(index.shape) if part.dim() == 0 else part)

    return value, write


@_writing('scatter_add')
def _scatter_add(call: Call, dim: int, index: Tensor, src: Any) -> tuple:
    return src, lambda row, part: row.scatter_add_(dim, index, part)


@_writing('masked_scatter')
def _masked_scatter(call: Call, mask: Tensor, source: Any) -> tuple:
    return source, lambda row, part: row.masked_scatter_(mask, part)


@rule(*forms('masked_fill'))
def _masked_fill(call: Call, target: Tensor, mask: Tensor, value: Any) -> Tensor:
    mask = call.constants('mask', mask)
    rows = chosen(call, mask, value, target)
    return call.carry(call.plain(), rows)


@rule(*forms('where'))
def _where(call: Call, *args: Any, **kwargs: Any) -> Any:
    names = ('condition', 'input', 'other')
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if 'other' not in given:
        return call.plain()
    condition, a, b = (given[name] for name in names)
    if call.func is Tensor.where:
        condition, a = a, condition
    mask = call.constants('condition', condition)
    return call.carry(call.plain(), chosen(call, mask, a, b))


@rule(*forms('nan_to_num'))
def _nan_to_num(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    keep = call.at_operating_point('finite', lambda: torch.isfinite(input.detach()))
    rows = call.rows(input)
    rows = Rows(rows.ids, torch.where(keep, rows.stack, 0.0))
    if call.constant_ids:
        filled = torch.where(keep, 0.0, torch.nan_to_num(input.detach(), *args[:3], **kwargs))
        rows = call.constant(rows, call.at_operating_point('filled', lambda: filled))
    return call.carry(call.plain(), rows)
