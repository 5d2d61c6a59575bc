"""Deformable convolutions: with offsets and masks frozen they are linear."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ...core.session import overridden
from ..call import Call
from ..nested import exchanged
from ..registry import module_rule, named
from ..twin import plain
from .views import by_row


@module_rule(where=named('DeformConv2d', 'ModulatedDeformConv2d'))
def _deformable(call: Call, module: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Runs the module itself on each component.

    Offsets and masks are arguments, or come from the input by the module's ``conv_offset``, which
    then answers with what it gave for the value.
    """
    own, bias = getattr(module, 'conv_offset', None), getattr(module, 'bias', None)
    args, kwargs = exchanged((args, kwargs), lambda _, tensor: plain(tensor))
    more, named_more = call.constants('offsets', (args, kwargs))
    rows, out = call.rows(x), call.plain(plain(x), *args, **kwargs)
    with ExitStack() as stack:
        if own is not None:
            given = call.at_operating_point('own', lambda: type(own).forward(own, plain(x)))
            stack.enter_context(overridden(own, 'forward', lambda _: given))
        stack.enter_context(overridden(module, 'bias', None))
        rows = by_row(lambda row: call.func(row, *more, **named_more), rows, out)
    return call.carry(out, rows if bias is None else call.constant(rows, bias[:, None, None]))
