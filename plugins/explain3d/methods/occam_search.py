"""Detections of a frame, looked for in its sub-clouds (OccAM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.black_box import Region
from ..core.grouping import join_windows
from ..core.structures import Trace
from .occam_similarity import similarities


class Search:
    """Looks for some of a trace's detections.

    Args:
        trace: Of K detections, with a black box.
        active: (K,) bool: which are looked for.
        score_thr: Boxes with a score above this count as found.
        radius: Around a detection's centre, metres, in which the anchor or cell of a box has to be;
            None: all boxes count.
    """

    def __init__(
        self, trace: Trace, active: Tensor, score_thr: float, radius: float | None
    ) -> None:
        self.trace, self.box, self.score_thr = trace, trace.black_box, score_thr
        self._regions: dict[int, Region] = {}
        self._groups: list[list[int]] = []
        if radius is not None:
            self._share_out(active.nonzero().flatten().tolist(), radius)

    def _share_out(self, rows: Sequence[int], radius: float) -> None:
        """Puts the detections into groups, with a pass over a part of the frame each."""
        boxes, labels = self.trace.detections.boxes.tolist(), self.trace.detections.labels.tolist()
        self._regions = {k: Region(boxes[k][0], boxes[k][1], radius, labels[k]) for k in rows}
        # How far the detector looks is known once it has seen the frame.
        regions = list(self._regions.values())
        self.box.candidates_in([], regions, self.score_thr, self.trace.points)

        def cost(places: Sequence[int]) -> float:
            regions = [self._regions[rows[i]] for i in places]
            return self.box.cost(regions, self.trace.points, anywhere=True)

        groups = join_windows(len(rows), cost)
        self._groups = [[rows[i] for i in group] for group in groups]

    def __call__(self, clouds: Sequence[Tensor], factors: Sequence[Sequence[str]]) -> Tensor:
        """Returns the (B, K, U) similarities in B clouds; 0 for what is not looked for.

        Args:
            clouds: Sub-clouds.
            factors: As in ``similarities``.
        """
        detections = self.trace.detections
        if not self._regions:
            found = self.box.candidates(clouds, self.score_thr)
            return similarities(detections, found, factors)
        out = torch.zeros(
            len(clouds), len(detections), len(factors), dtype=torch.float64,
            device=detections.boxes.device,
        )  # fmt: skip
        for group in self._groups:
            regions = [self._regions[k] for k in group]
            answers = self.box.candidates_in(
                clouds, regions, self.score_thr, self.trace.points, anywhere=True
            )
            for place, k in enumerate(group):
                found = [answer[place] for answer in answers]
                out[:, [k]] = similarities(detections[k : k + 1], found, factors)
        return out
