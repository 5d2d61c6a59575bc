"""What makes a network linear at one input, kept so that another input can be run through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from .nested import exchanged, tensors
from .settings import Rules


@dataclass(frozen=True)
class RecordedOperation:
    """One operation: which it was, and what of it depends on the operating point.

    Attributes:
        operation: Its name.
        module: Path of the module that it ran in.
        shapes: Shapes of the decomposed tensors that went in.
        items: Slopes, standard deviations, selections, attention weights, shares of the bias.
    """

    operation: str
    module: str
    shapes: tuple[tuple[int, ...], ...]
    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrozenRecord:
    """A network's linear form at one input: an affine map of the seeded tensors.

    Attributes:
        names: The modalities, then 'bias'.
        rules: The rules that were followed; a replay follows them too.
        operations: One entry per operation, in order.
        voxels: The 'input' and 'output' cells of each run of a sparse convolution, by the module's
            path and the number of the run.
    """

    names: tuple[str, ...]
    rules: Rules
    operations: list[RecordedOperation] = field(default_factory=list)
    voxels: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Memory of everything that is kept, in bytes."""
        everything = (*(op.items for op in self.operations), *self.voxels.values())
        kept = (t for items in everything for _, t in tensors(items))
        return sum(t.numel() * t.element_size() for t in kept)

    def to(self, device: torch.device | str) -> FrozenRecord:
        """Returns the record with its tensors on another device."""

        def moved(items: Any) -> Any:
            return exchanged(items, lambda _, tensor: tensor.to(device))

        operations = [
            RecordedOperation(op.operation, op.module, op.shapes, moved(op.items))
            for op in self.operations
        ]
        voxels = {key: moved(cells) for key, cells in self.voxels.items()}
        return FrozenRecord(self.names, self.rules, operations, voxels)


def replayed(record: FrozenRecord, index: int, now: RecordedOperation) -> RecordedOperation:
    """Returns the recorded operation that corresponds to the one that runs now.

    Raises:
        InputError: If the network does something else than when it was recorded.
    """
    if index >= len(record.operations):
        raise InputError(
            f'The frozen record ends after {len(record.operations)} operations, but '
            f'{describe(now)} follows: record the same network on an input of the same shapes.'
        )
    then = record.operations[index]
    if (then.operation, then.module, then.shapes) != (now.operation, now.module, now.shapes):
        raise InputError(
            f'The frozen record does not fit: operation {index} was {describe(then)}, received '
            f'{describe(now)}. Record the same network on an input of the same shapes.'
        )
    return then


def describe(operation: RecordedOperation) -> str:
    """Returns the operation in words."""
    return f'{operation.operation} in module {operation.module!r} on {list(operation.shapes)}'


def kept(value: Any) -> Any:
    """Returns ``value`` with copies of its tensors, which the network may overwrite later."""
    return exchanged(value, lambda _, tensor: tensor.detach().clone().as_subclass(Tensor))
