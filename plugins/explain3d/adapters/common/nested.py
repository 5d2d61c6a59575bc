"""Nests of tensors, as heads give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Returns the nest with ``function`` applied to each tensor; dicts come in their order."""
    if isinstance(value, dict):
        return {key: mapped(part, function) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(part, function) for part in value)
    return function(value) if isinstance(value, Tensor) else value


def leaves(value: Any) -> list[Tensor]:
    """Returns the tensors of a nest."""
    found: list[Tensor] = []
    mapped(value, lambda tensor: (found.append(tensor), tensor)[1])
    return found


def frame_of(value: Any, index: int) -> Any:
    """Returns one frame of a batch as a batch of one."""
    return mapped(value, lambda tensor: tensor[index : index + 1])
