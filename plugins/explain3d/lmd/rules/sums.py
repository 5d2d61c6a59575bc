"""Sums, differences and copies: components add up by number; constants are the bias's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..registry import forms, rule
from ..rows import Rows


def scaled(rows: Rows, factor: Any) -> Rows:
    """Multiplies every component by a number or a tensor that broadcasts."""
    if isinstance(factor, (int, float)) and factor == 1:
        return rows
    ndim = factor.dim() if isinstance(factor, Tensor) else 0
    return Rows(rows.ids, rows.lifted(ndim) * factor)


def operand(call: Call, name: str, value: Any) -> Rows:
    """Returns the components of an operand; a plain one is kept for the frozen record."""
    if call.is_carried(value):
        return call.rows(value)
    return call.rows(call.constants(name, value))


def _sum(call: Call, a: Any, b: Any, alpha: float = 1, beta: float = 1) -> Tensor:
    first, second = operand(call, 'first', a), operand(call, 'second', b)
    rows = scaled(first, beta) + scaled(second, alpha)
    return call.carry(call.plain(), rows)


@rule(*forms('add'), Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
def _add(call: Call, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _sum(call, input, other, alpha)


@rule(*forms('sub', 'subtract'), Tensor.__sub__, Tensor.__isub__)
def _sub(call: Call, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _sum(call, input, other, -alpha)


@rule(*forms('rsub'), Tensor.__rsub__)
def _rsub(call: Call, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    return _sum(call, other, input, -alpha)


@rule(*forms('neg', 'negative'), Tensor.__neg__)
def _neg(call: Call, input: Tensor) -> Tensor:
    rows = scaled(call.rows(input), -1.0)
    return call.carry(call.plain(), rows)


@rule(torch.positive, Tensor.positive, Tensor.__pos__)
def _pos(call: Call, input: Tensor) -> Tensor:
    return call.plain()


@rule(*forms('lerp'))
def _lerp(call: Call, input: Any, end: Any, weight: Any) -> Tensor:
    weight = call.constants('weight', weight.detach() if isinstance(weight, Tensor) else weight)
    rows = scaled(operand(call, 'first', input), 1 - weight)
    rows = rows + scaled(operand(call, 'second', end), weight)
    return call.carry(call.plain(), rows)


@rule(Tensor.copy_)
def _copy(call: Call, target: Tensor, source: Any, non_blocking: bool = False) -> Tensor:
    rows = operand(call, 'source', source)
    return call.carry(call.plain(), Rows(rows.ids, rows.stack.to(target.device, target.dtype)))


@rule(Tensor.fill_, Tensor.zero_)
def _fill(call: Call, target: Tensor, value: Any = 0) -> Tensor:
    rows = operand(call, 'value', value)
    return call.carry(call.plain(), rows)


@rule(*forms('addmm', 'addbmm', 'baddbmm', 'addmv', 'addr', 'addcmul', 'addcdiv'))
def _fused(
    call: Call,
    input: Any,
    first: Any,
    second: Any,
    *,
    beta: float = 1,
    alpha: float = 1,
    value: float = 1,
) -> Tensor:
    from .products import product_rows

    name = call.func.__name__.rstrip('_')
    function = {
        'addmm': torch.matmul,
        'baddbmm': torch.matmul,
        'addmv': torch.matmul,
        'addr': torch.outer,
        'addbmm': lambda a, b: (a @ b).sum(-3),
        'addcmul': torch.mul,
        'addcdiv': torch.div,
    }[name]
    if name in ('addcmul', 'addcdiv'):
        alpha = value
    rows = scaled(operand(call, 'input', input), beta)
    rows = rows + scaled(product_rows(call, first, second, function), alpha)
    return call.carry(call.plain(), rows)
