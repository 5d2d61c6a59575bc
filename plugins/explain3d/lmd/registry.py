"""Where rules are registered: one small function per operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FUNCTION_RULES: dict[Callable, Callable] = {}
MODULE_RULES: dict[type[nn.Module], Callable] = {}
#: Rules of modules that are known by what they have, not by their class: (condition, rule).
CONDITIONAL_RULES: list[tuple[Callable[[nn.Module], bool], Callable]] = []
#: Rules of single methods of modules: (condition, name of the method, rule).
METHOD_RULES: list[tuple[Callable[[nn.Module], bool], str, Callable]] = []


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


def module_rule(
    *types: type[nn.Module], where: Callable[[nn.Module], bool] | None = None
) -> Callable[[Callable], Callable]:
    """Registers a rule for modules whose inside is not visible, such as compiled extensions.

    The rule is called as ``rule(call, module, *args, **kwargs)`` when an instance of one of
    ``types``, or of a subclass without a rule of its own, runs with carried tensors among its
    arguments. ``call.plain()`` runs the module itself on the values, ``call.func`` on others.

    Args:
        types: Classes of modules.
        where: A condition instead, for classes that are not to be imported; rules of classes go
            before it, and so do conditions that were registered earlier.

    Examples:
        >>> @module_rule(Shift)  # doctest: +SKIP
        ... def _shift(call, module, x):
        ...     rows = call.rows(x)
        ...     parts = [call.func(row) for row in rows.stack]  # linear, no additive constant
        ...     return call.carry(call.plain(), Rows(rows.ids, torch.stack(parts)))
    """

    def decorate(function: Callable) -> Callable:
        for key in types:
            MODULE_RULES[key] = function
        if where is not None:
            CONDITIONAL_RULES.append((where, function))
        return function

    return decorate


def method_rule(name: str, where: Callable[[nn.Module], bool]) -> Callable[[Callable], Callable]:
    """Registers a rule for a method of modules that hides an extension from torch's dispatch.

    As ``module_rule``, for calls of ``module.name(*args)`` with carried tensors; what the module
    does besides is decomposed as usual.

    Args:
        name: The method.
        where: Which modules' method it is.
    """

    def decorate(function: Callable) -> Callable:
        METHOD_RULES.append((where, name, function))
        return function

    return decorate


def named(*names: str) -> Callable[[nn.Module], bool]:
    """Returns the condition that a module's class, or a base of it, has one of these names."""
    return lambda module: any(parent.__name__ in names for parent in type(module).__mro__)


def module_rule_of(module: nn.Module) -> Callable | None:
    """Returns the rule of a module's class, of the nearest base class, or by a condition."""
    found = next((MODULE_RULES[t] for t in type(module).__mro__ if t in MODULE_RULES), None)
    if found is not None:
        return found
    return next((function for where, function in CONDITIONAL_RULES if where(module)), None)


def method_rules_of(module: nn.Module) -> list[tuple[str, Callable]]:
    """Returns name and rule of each method of a module that has one."""
    return [(name, function) for where, name, function in METHOD_RULES if where(module)]


def forms(*names: str) -> tuple[Any, ...]:
    """Returns the functions called ``name`` or ``name_`` of torch, Tensor and functional."""
    owners = (torch, Tensor, functional, torch._C._nn, torch.special)
    keys = [n for name in names for n in (name, f'{name}_')]
    return tuple(getattr(owner, key) for owner in owners for key in keys if hasattr(owner, key))
