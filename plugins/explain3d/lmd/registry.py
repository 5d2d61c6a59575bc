"""Where rules are registered: one small function per operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FUNCTION_RULES: dict[Callable, Callable] = {}
MODULE_RULES: dict[type[nn.Module], Callable] = {}


def rule(*functions: Callable) -> Callable[[Callable], Callable]:
    """Registers a rule for functions, as ``@rule(torch.flip, torch.Tensor.flip)``.

    The rule is called as ``rule(call, *args, **kwargs)`` with the arguments of the function. It
    computes what the operation does to the components, calls ``call.plain()`` once, which runs the
    network's own operation, and returns ``call.carry(out, rows)``.

    Args:
        functions: In each form in which networks call it: torch's, the method, the in-place one,
            that of ``torch.nn.functional``; ``forms`` finds them by name.

    Examples:
        >>> @rule(my_scaling)  # doctest: +SKIP
        ... def _my_scaling(call, x, factor):
        ...     rows = call.rows(x)
        ...     return call.carry(call.plain(), Rows(rows.ids, rows.stack * factor))
    """

    def decorate(function: Callable) -> Callable:
        for key in functions:
            FUNCTION_RULES[key] = function
        return function

    return decorate


def module_rule(*types: type[nn.Module]) -> Callable[[Callable], Callable]:
    """Registers a rule for modules whose inside is not visible, such as compiled extensions.

    The rule is called as ``rule(call, module, *args, **kwargs)`` when an instance of one of
    ``types``, or of a subclass without a rule of its own, runs with carried tensors among its
    arguments. ``call.plain()`` runs the module itself on the values.

    Examples:
        >>> @module_rule(DeformConv2d)  # doctest: +SKIP
        ... def _deform_conv(call, module, x, offset):
        ...     rows = call.rows(x)
        ...     offset = call.constants('offset', offset)
        ...     parts = [module(row, offset) for row in rows.stack]  # no additive constant
        ...     return call.carry(call.plain(), Rows(rows.ids, torch.stack(parts)))
    """

    def decorate(function: Callable) -> Callable:
        for key in types:
            MODULE_RULES[key] = function
        return function

    return decorate


def module_rule_of(module: nn.Module) -> Callable | None:
    """Returns the rule of a module's class or of the nearest base class that has one."""
    return next((MODULE_RULES[t] for t in type(module).__mro__ if t in MODULE_RULES), None)


def forms(*names: str) -> tuple[Any, ...]:
    """Returns the functions called ``name`` or ``name_`` of torch, Tensor and functional."""
    owners = (torch, Tensor, functional, torch._C._nn, torch.special)
    keys = [n for name in names for n in (name, f'{name}_')]
    return tuple(getattr(owner, key) for owner in owners for key in keys if hasattr(owner, key))
