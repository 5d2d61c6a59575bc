"""Tensors inside arguments and outputs of modules: lists, dicts, tuples, sparse tensors."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from ..core.capture import is_sparse, with_features
from ..core.errors import UnknownNameError


def tensors(value: Any, path: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yields the dotted path and the tensor, for each tensor in a nested structure."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, _join(path, key))
    elif isinstance(value, (tuple, list, deque)):
        for index, item in enumerate(value):
            yield from tensors(item, _join(path, index))
    elif is_sparse(value):
        yield _join(path, 'features'), value.features


def exchanged(value: Any, change: Callable[[str, Tensor], Tensor], path: str = '') -> Any:
    """Returns a nested structure with each tensor replaced by ``change(path, tensor)``.

    Containers in which nothing changes are returned themselves.
    """
    if isinstance(value, Tensor):
        return change(path, value)
    if isinstance(value, dict):
        items = {k: exchanged(v, change, _join(path, k)) for k, v in value.items()}
        if all(items[k] is v for k, v in value.items()):
            return value
        copy = value.copy()
        copy.update(items)
        return copy
    if isinstance(value, (tuple, list)):
        items = [exchanged(v, change, _join(path, i)) for i, v in enumerate(value)]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    if isinstance(value, deque):
        items = [exchanged(v, change, _join(path, i)) for i, v in enumerate(value)]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else deque(items, value.maxlen)
    if is_sparse(value):
        features = change(_join(path, 'features'), value.features)
        return value if features is value.features else with_features(value, features)
    return value


def exchange_at(value: Any, path: str, change: Callable[[Tensor], Tensor], where: str) -> Any:
    """Returns a nested structure with the tensor at ``path`` replaced.

    Raises:
        UnknownNameError: If there is no tensor at ``path``; the message lists where there are.
    """
    found = []

    def at(here: str, tensor: Tensor) -> Tensor:
        if here != path:
            return tensor
        found.append(here)
        return change(tensor)

    out = exchanged(value, at)
    if not found:
        known = [here for here, _ in tensors(value)]
        raise UnknownNameError(f'No tensor at path {path!r} of {where}: expected one of {known}.')
    return out


def named_arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, str]:
    """Maps an argument's name to its index and vice versa, as the caller happened to give it."""
    try:
        names = list(inspect.signature(type(module).forward).parameters)[1:]
    except (TypeError, ValueError):
        return {}
    given = {name: str(i) for i, name in enumerate(names[: len(args)])}
    given.update({str(i): name for i, name in enumerate(names) if name in kwargs})
    return given


def _join(path: str, key: Any) -> str:
    return f'{path}.{key}' if path else str(key)
