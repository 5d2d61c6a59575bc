"""Products. Of two decomposed factors one is frozen: it becomes a coefficient of the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..dispatch import unknown
from ..registry import forms, rule
from ..rows import Rows


def frozen_factor(call: Call, a: Any, b: Any) -> str:
    """Returns which of two factors is a coefficient: 'first', 'second' or 'symmetric'."""
    if call.is_constant(a) != call.is_constant(b):
        return 'first' if call.is_constant(a) else 'second'
    if call.is_carried(a) != call.is_carried(b):
        return 'second' if call.is_carried(a) else 'first'
    if call.rules.product != 'gate':
        return call.rules.product
    gates = [call.is_carried(x) and x._twin.gate for x in (a, b)]
    if gates[0] != gates[1]:
        return 'first' if gates[0] else 'second'
    return 'first' if a.numel() < b.numel() else 'second'


def product_rows(
    call: Call, a: Any, b: Any, function: Callable[[Any, Any], Tensor], where: str = ''
) -> Rows:
    """Returns the components of a bilinear ``function(a, b)`` of two factors.

    Args:
        call: The operation.
        a: First factor.
        b: Second factor; at least one of the two is decomposed.
        function: Broadcasts as elementwise functions or matrix products do over leading dims.
        where: Distinguishes several products of one operation in the frozen record.
    """
    frozen = frozen_factor(call, a, b)
    results = []
    if frozen in ('second', 'symmetric'):
        fixed = coefficient(call, f'second{where}', b)
        results.append(_mapped(call, a, b, lambda x: function(x, fixed), function))
    if frozen in ('first', 'symmetric'):
        fixed = coefficient(call, f'first{where}', a)
        results.append(_mapped(call, b, a, lambda x: function(fixed, x), function))
    if len(results) == 1:
        return results[0]
    both = results[0] + results[1]
    return Rows(both.ids, both.stack / 2)


def coefficient(call: Call, name: str, value: Any) -> Any:
    """Returns a factor as it is, or as it was when recorded."""
    return call.constants(name, value.detach() if call.is_carried(value) else value)


def _mapped(call: Call, x: Any, other: Any, map_one: Callable, function: Callable) -> Rows:
    rows = call.rows(x)
    ndim = max(
        x.dim() if isinstance(x, Tensor) else 0, other.dim() if isinstance(other, Tensor) else 0
    )
    if function in (torch.mul, torch.div):
        return Rows(rows.ids, map_one(rows.lifted(ndim)))
    if x.dim() == 1 or not isinstance(other, Tensor) or other.dim() == 1:
        parts = [map_one(row) for row in rows.stack]
        empty = map_one(x.detach())[None][:0]
        return Rows(rows.ids, torch.stack(parts) if parts else empty)
    return Rows(rows.ids, map_one(rows.lifted(ndim)))


@rule(*forms('mul', 'multiply'), Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
def _mul(call: Call, input: Any, other: Any) -> Tensor:
    rows = product_rows(call, input, other, torch.mul)
    return call.carry(call.plain(), rows)


@rule(*forms('div', 'divide', 'true_divide'), Tensor.__truediv__, Tensor.__div__,
      Tensor.__itruediv__, Tensor.__idiv__)  # fmt: skip
def _div(call: Call, input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise unknown(call.operation, call.module, ' It rounds.')
    if not call.is_carried(input):
        raise unknown(call.operation, call.module, ' Only its divisor is decomposed.')
    divisor = coefficient(call, 'divisor', other)
    ndim = divisor.dim() if isinstance(divisor, Tensor) else 0
    rows = call.rows(input)
    rows = Rows(rows.ids, rows.lifted(ndim) / divisor)
    return call.carry(call.plain(), rows)


@rule(*forms('matmul', 'mm', 'bmm', 'mv', 'dot'), Tensor.__matmul__, Tensor.__rmatmul__)
def _matmul(call: Call, input: Tensor, other: Tensor) -> Tensor:
    if call.func is Tensor.__rmatmul__:
        input, other = other, input
    rows = product_rows(call, input, other, torch.matmul)
    return call.carry(call.plain(), rows)


@rule(torch.einsum, torch.functional.einsum)
def _einsum(call: Call, equation: str, *operands: Any) -> Tensor:
    if not isinstance(equation, str) or len(operands) > 2:
        operands = tuple(operands[0]) if len(operands) == 1 else operands
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) > 2:
        raise unknown('torch.einsum', call.module, ' Expected a text and at most two operands.')
    inputs, output = _einsum_sides(equation)
    names = inputs.split(',')
    label = next(c for c in 'ZYXWVUTSRQPONMLKJIHGFEDCBA' if c not in equation)

    def with_rows(position: int) -> str:
        terms = [label + n if i == position else n for i, n in enumerate(names)]
        return f'{",".join(terms)}->{label}{output}'

    if len(operands) == 1:
        rows = call.rows(operands[0])
        rows = Rows(rows.ids, torch.einsum(with_rows(0), rows.stack))
        return call.carry(call.plain(), rows)
    frozen = frozen_factor(call, *operands)
    results = []
    for position, other in ((0, 1), (1, 0)):
        if frozen == ('first', 'second')[position]:
            continue
        fixed = coefficient(call, f'operand {other}', operands[other])
        rows = call.rows(operands[position])
        pair = (rows.stack, fixed) if position == 0 else (fixed, rows.stack)
        results.append(Rows(rows.ids, torch.einsum(with_rows(position), *pair)))
    rows = results[0] if len(results) == 1 else results[0] + results[1]
    if len(results) == 2:
        rows = Rows(rows.ids, rows.stack / 2)
    return call.carry(call.plain(), rows)


def _einsum_sides(equation: str) -> tuple[str, str]:
    """Returns inputs and output of an equation; an implicit output as torch defines it."""
    equation = equation.replace(' ', '')
    if '->' in equation:
        inputs, output = equation.split('->')
        return inputs, output
    letters = equation.replace('...', '').replace(',', '')
    once = ''.join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return equation, ('...' if '...' in equation else '') + once


@rule(*forms('square'))
def _square(call: Call, input: Tensor) -> Tensor:
    rows = product_rows(call, input, input, torch.mul)
    return call.carry(call.plain(), rows)


@rule(torch.nn.functional.glu)
def _glu(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    gate = call.at_operating_point('gate', lambda: torch.sigmoid(input.chunk(2, dim)[1].detach()))
    rows = call.rows(input)
    values = rows.stack.chunk(2, dim if dim < 0 else dim + 1)[0]
    return call.carry(call.plain(), Rows(rows.ids, values * gate))


@rule(torch.nn.functional.normalize)
def _normalize(
    call: Call, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    def norm() -> Tensor:
        return input.detach().norm(p, dim, keepdim=True).clamp_min(eps)

    norm = call.at_operating_point('norm', norm)
    rows = call.rows(input)
    return call.carry(call.plain(), Rows(rows.ids, rows.stack / norm))
