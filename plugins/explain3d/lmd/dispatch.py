"""What happens when the network calls a function with a carried tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name

from ..core.errors import NotApplicableError, UnknownOperationError
from .call import Call
from .exports import came_back, read_numbers
from .nested import tensors
from .registry import FUNCTION_RULES, forms
from .twin import Carried, same_storage

#: In-place, but only the way the memory is looked at changes: components are looked up by that.
_GEOMETRY = frozenset(
    ('unsqueeze_', 'squeeze_', 't_', 'transpose_', 'swapaxes_', 'swapdims_', 'as_strided_')
    + ('requires_grad_', 'detach_', 'share_memory_', 'pin_memory')
)
_INPLACE_DUNDER = frozenset(
    ('__iadd__', '__isub__', '__imul__', '__itruediv__', '__idiv__', '__ifloordiv__', '__imod__')
    + ('__ipow__', '__iand__', '__ior__', '__ixor__', '__ilshift__', '__irshift__', '__imatmul__')
)


#: Where a number that was read from a decomposed tensor is a frozen factor, or a bound.
_FACTORS = frozenset(
    (*forms('mul', 'multiply', 'div', 'divide', 'true_divide', 'clamp', 'clip'),)
    + (*forms('clamp_min', 'clamp_max'), Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
    + (Tensor.__truediv__, Tensor.__itruediv__)
)


def dispatch(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Applies ``func`` to values and components.

    Raises:
        UnknownOperationError: If there is no rule for it.
    """
    carried = [t for _, t in tensors((args, kwargs)) if isinstance(t, Carried)]
    run = carried[0]._twin.run if carried else None
    grad = torch.is_grad_enabled()
    with torch._C.DisableTorchFunctionSubclass():
        if run is None or not run.is_active:
            return func(*args, **kwargs)
        rule = FUNCTION_RULES.get(func)
        if rule is None:
            return _without_rule(run, func, args, kwargs, carried)
        name = operation_name(func)
        if run.has_read and func not in _FACTORS:
            for number in read_numbers(args, kwargs):
                came_back(run, name, number, run.rules_here().exports)
        _check_out(name, run.module, kwargs)
        with torch.set_grad_enabled(run.differentiable):
            if not isinstance(args[0] if args else None, Carried) and _mutates(func, args, kwargs):
                run.adopt(args[0], name)
                carried.insert(0, args[0])
            call = Call(run, func, args, kwargs, carried, name)
            call._grad = grad
            return rule(call, *args, **kwargs)


def _without_rule(
    run: Any, func: Callable, args: tuple, kwargs: dict, carried: list[Carried]
) -> Any:
    """Handles what needs no rule: views, questions, and results that are not real numbers."""
    if _mutates(func, args, kwargs):
        if func.__name__ not in _GEOMETRY:
            raise unknown(operation_name(func), run.module)
        return func(*args, **kwargs)
    out = func(*args, **kwargs)
    for _, tensor in tensors(out):
        if isinstance(tensor, Carried) or not _is_real(tensor):
            continue
        base = next((t for t in carried if same_storage(t, tensor)), None)
        if base is None or tensor.dtype != base.dtype:
            raise unknown(operation_name(func), run.module)
        run.carry(tensor, base._twin)
    return out


def unknown(operation: str, module: str, why: str = '') -> UnknownOperationError:
    """Returns the error for an operation that has no rule."""
    return UnknownOperationError(
        f'No LMD rule for {operation} in module {module!r}.{why} Register one with '
        "@explain3d.lmd.rule(function), or end the decomposition before it: name the module's "
        "input stage in outputs or stop, or declare the module's result constant with "
        f"per_module={{{module!r}: dict(module='constant')}}."
    )


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@cache
def operation_name(func: Callable) -> str:
    """Returns the name of a function for messages and records."""
    try:
        name = resolve_name(func)
    except Exception:
        name = None
    return name or getattr(func, '__qualname__', None) or str(func)


def _check_out(name: str, module: str, kwargs: dict) -> None:
    if kwargs.get('out') is not None:
        raise NotApplicableError(
            f'{name} in module {module!r} writes into out=: expected the result to be returned. '
            'LMD has no rule for out=.'
        )


def _mutates(func: Callable, args: tuple, kwargs: dict) -> bool:
    name = func.__name__
    if name in ('__setitem__', '__setstate__') or name in _INPLACE_DUNDER:
        return True
    if name == '__set__':
        return func == Tensor.data.__set__
    if name.endswith('_') and not name.endswith('__'):
        return True
    index = _inplace_position(func)
    if index is None:
        return False
    return bool(args[index]) if len(args) > index else bool(kwargs.get('inplace', False))


@cache
def _inplace_position(func: Callable) -> int | None:
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return None
    return names.index('inplace') if 'inplace' in names else None
