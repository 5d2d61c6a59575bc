"""The second pass over a frame, and further ones with other features at the explained layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ...core.capture import Leaf
from ...core.errors import NotApplicableError
from ...core.structures import Detections
from .candidates import Candidates, attributes_of, identify

#: Reads the detections' attributes off the candidates of a pass.
Read = Callable[[Candidates], dict[str, Tensor]]


class Replays:
    """Passes over one frame whose detections are looked up once.

    Args:
        run: Runs the frame with a graph from the layer on, with other features there unless they
            are None, and returns the leaf and what ``Read`` gives.
        detections: K detections of the frame.
        frame_id: Names the frame.

    Attributes:
        index: (K,) the detections' candidates, once a pass has been made.
        cells: (K, 2) row and column of their cells on the head's map, if it has one map.
    """

    def __init__(
        self,
        run: Callable[[Read, Tensor | None], tuple[Leaf, dict[str, Tensor]]],
        detections: Detections,
        frame_id: str,
    ) -> None:
        self._run, self._detections, self._frame_id = run, detections, frame_id
        self.index: Tensor | None = None
        self.cells: Tensor | None = None

    def first(self) -> tuple[Leaf, dict[str, Tensor]]:
        """Runs the frame as it is.

        Returns:
            The leaf, and each attribute's (K,) values with a graph that starts there.
        """
        return self._run(self._read, None)

    def __call__(self, value: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs it with the features ``value``; what ``Trace.replay`` is."""
        leaf, attributes = self._run(self._read, value)
        return leaf.tensor, attributes

    def _read(self, candidates: Candidates) -> dict[str, Tensor]:
        if self.index is None:
            self.index = identify(candidates, self._detections, self._frame_id)
            self.cells = _cells(candidates, self.index)
        return attributes_of(candidates, self.index, self._detections.labels)


def _cells(candidates: Candidates, index: Tensor) -> Tensor | None:
    try:
        return candidates.cells(index)
    except NotApplicableError:
        return None
