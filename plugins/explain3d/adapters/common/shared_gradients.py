"""A further layer's gradients from the passes that the explained layer has anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ...core.structures import Trace
from .windowed_gradients import WindowedGradients


class SharedGradients:
    """See ``core.gradients.GradientSource``; ``sharing`` makes it.

    What the explained layer's windows do not give, the layer's own ones do.

    Args:
        first: The source of the explained layer.
        own: That of the further one.
    """

    def __init__(self, first: WindowedGradients, own: WindowedGradients) -> None:
        self.leaf, self.attributes = own.leaf, own.attributes
        self.order = first.order
        self._first, self._own = first, own
        self._number = first.also_at(own)
        self._shared = True

    @property
    def passes(self) -> int:
        """Those of the layer alone."""
        return self._own.passes

    def gradient(self, k: int, names: tuple[str, ...], signed: bool) -> Tensor | None:
        """Returns the (M, C) gradient of detection k, see ``GradientSource``."""
        if self._shared:
            found = self._first.gradient_above(self._number, k, names, signed)
            if found is not None:
                return self._own.rows(found)
            self._shared = False
        return self._own.gradient(k, names, signed)


def sharing(first: Trace, further: Sequence[Trace]) -> list[Trace]:
    """Returns traces at further layers whose gradients come with those of the first, if they can.

    Args:
        first: The trace at the explained layer.
        further: The same frame and detections at others.
    """
    found = []
    for trace in further:
        sources = first.gradients, trace.gradients
        if all(isinstance(source, WindowedGradients) for source in sources):
            trace = replace(trace, gradients=SharedGradients(*sources))
        found.append(trace)
    return found
