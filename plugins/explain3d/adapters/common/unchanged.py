"""Whether tensors are still those from which something was computed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from torch import Tensor, nn


class Unchanged:
    """Tensors as they were at one moment, to tell whether what was computed of them still holds.

    A tensor is the same if it is the same object, in the same memory, and nobody has written to it
    since. Tensors of inference mode do not count writes: they are never taken for the same.

    Args:
        tensors: What was computed with.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        # The tensors are kept: the address of one that is gone can be that of another.
        self._tensors = list(tensors)
        self._states = [_state(tensor) for tensor in self._tensors]

    def holds_for(self, tensors: Iterable[Tensor]) -> bool:
        """Returns whether ``tensors`` are the same, in the same order, and unchanged.

        Args:
            tensors: What would be computed with now.
        """
        now = [_state(tensor) for tensor in tensors]
        return None not in now and now == self._states


def weights_of(model: nn.Module) -> Iterable[Tensor]:
    """Returns a model's parameters and buffers."""
    return chain(model.parameters(), model.buffers())


def _state(tensor: Tensor) -> tuple[int, int, int] | None:
    if tensor.is_inference():
        return None
    return id(tensor), tensor.data_ptr(), tensor._version
