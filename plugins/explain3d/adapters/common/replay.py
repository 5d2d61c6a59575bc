"""Passes over a frame for its explanation: its own features, or others at the explained layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.capture import Leaf
from ...core.errors import NotApplicableError
from ...core.structures import Detections
from .candidates import Candidates, attributes_of, identify
from .later_graph import LaterGraph

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
        passes: Of the detector that were made so far; the host's own is none of them.
    """

    def __init__(
        self,
        run: Callable[[Read, Tensor | None], tuple[Leaf, dict[str, Tensor]]],
        detections: Detections,
        frame_id: str,
    ) -> None:
        self._host, self.detections, self._frame_id = run, detections, frame_id
        self.passes = 0
        self.index: Tensor | None = None
        self.cells: Tensor | None = None
        self._rows: Tensor | None = None
        self._choice: Tensor | None = None

    def first(self) -> tuple[Leaf, dict[str, Tensor]]:
        """Runs the frame as it is.

        Returns:
            The leaf, and each attribute's (K,) values with a graph that starts there.
        """
        leaf, attributes = self._run(self._read, None)
        self._rows = leaf.indices
        return leaf, attributes

    def seen(self, candidates: Candidates, leaf: Leaf) -> dict[str, Tensor]:
        """Takes the host's own pass for the first one.

        Args:
            candidates: Of the frame in that pass.
            leaf: The layer in that pass.

        Returns:
            Each attribute's (K,) values; a pass with a graph is made when one is differentiated.
        """
        with torch.no_grad():
            values = self._read(candidates)
        self._rows = leaf.indices
        return LaterGraph(lambda: self._run(self._read, None), leaf).attributes(values)

    def __call__(self, value: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Runs it with the features ``value``; what ``Trace.replay`` is.

        Raises:
            NotApplicableError: If the layer has other voxels than in the first pass, or the head's
                candidates are of other proposals, queries or voxels than there.
        """
        leaf, attributes = self._run(self._read, value)
        if leaf.indices is not None and not torch.equal(leaf.indices, self._rows):
            raise NotApplicableError(
                f'Frame {self._frame_id!r}: the voxels of the layer are others than in the first '
                'pass, or in another order: expected the same, to which features belong row by '
                'row. Does the detector draw random numbers?'
            )
        return leaf.tensor, attributes

    def _run(self, read: Read, value: Tensor | None) -> tuple[Leaf, dict[str, Tensor]]:
        self.passes += 1
        return self._host(read, value)

    def _read(self, candidates: Candidates) -> dict[str, Tensor]:
        choice = candidates.choice()
        if self.index is None:
            self.index = identify(candidates, self.detections, self._frame_id)
            self.cells, self._choice = _cells(candidates, self.index), choice
        elif not _same(choice, self._choice):
            raise NotApplicableError(
                f'Frame {self._frame_id!r}: with other features or weights other candidates are '
                f'chosen ({candidates.chosen_by or "the voxels of the head are others"}), so that '
                'a detection has no counterpart in such a pass: expected the same candidates. Use '
                'a method of one pass (FFAM, ODAM, GradientTimesInput), or a one-stage detector.'
            )
        return attributes_of(candidates, self.index, self.detections.labels)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a, b)


def _cells(candidates: Candidates, index: Tensor) -> Tensor | None:
    try:
        return candidates.cells(index)
    except NotApplicableError:
        return None
