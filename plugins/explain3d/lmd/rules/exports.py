"""Reading values out of torch, and making tensors from given ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..call import Call
from ..exports import left, number_read
from ..registry import rule
from ..rows import Rows
from .views import by_row


@rule(Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__, Tensor.__dlpack__,
      Tensor.__reduce_ex__, torch.utils.dlpack.to_dlpack)  # fmt: skip
def _left(call: Call, *args: Any, **kwargs: Any) -> Any:
    tensor, policy = call.carried[0], call.rules.exports
    if call.is_constant(tensor):
        return call.plain()
    if tensor.numel() == 1:
        return number_read(call.run, call.operation, tensor, call.plain(), policy)
    left(call.run, call.operation, tensor, policy)
    return call.plain()


@rule(Tensor.__float__, Tensor.__complex__, Tensor.__int__, Tensor.__index__, Tensor.__bool__)
def _number(call: Call, tensor: Tensor) -> Any:
    value = call.plain()
    if not call.is_constant(tensor):
        value = type(value)(
            number_read(call.run, call.operation, tensor, value, call.rules.exports)
        )
    return value


@rule(torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
def _made(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A copy of a tensor, or of nested lists with decomposed numbers among theirs."""
    # By name: the functions themselves are exchanged while a decomposition is open.
    position = int(call.func.__name__ == 'new_tensor')
    name = 'obj' if call.func.__name__ == 'asarray' else 'data'
    given = args[position] if len(args) > position else kwargs[name]
    out = call.plain()
    if out is given or not out.is_floating_point():
        return out
    carried = [t for t in _leaves(given) if call.is_carried(t)]
    if not carried:  # Only the type of ``new_tensor`` comes from a decomposed one.
        return out
    if isinstance(given, Tensor):
        base = call.aliases(out)
        if base is not None and base.dtype == out.dtype:
            return call.carry_view(out, base)
        rows = call.rows(given)
        return call.carry(out, Rows(rows.ids, rows.stack.to(out.device, out.dtype)))
    leaves = [_row_of(call, leaf, out) for leaf in _leaves(given)]
    stack = torch.stack(leaves, 1).reshape(-1, *out.shape)
    return call.carry(out, Rows(call.all_ids, stack))


def _leaves(value: Any) -> list:
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _row_of(call: Call, leaf: Any, out: Tensor) -> Tensor:
    """Returns (n, k) the components of one entry of a list, k its number of elements."""
    rows = call.rows(leaf).select(call.all_ids)
    return rows.stack.to(out.device, out.dtype).reshape(len(rows.ids), -1)


@rule(torch.scalar_tensor)
def _scalar_tensor(call: Call, value: Tensor, **kwargs: Any) -> Tensor:
    rows = call.rows(value)
    out = call.plain()
    return call.carry(out, by_row(lambda row: row.to(out.device, out.dtype).view(()), rows, out))


@rule(torch.full, torch.linspace, torch.arange)
def _filled(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    left(call.run, call.operation, call.carried[0], call.rules.exports)
    return call.plain()
