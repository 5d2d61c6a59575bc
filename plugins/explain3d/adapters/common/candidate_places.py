"""Which of a head's candidates lie in a region of the bird's-eye view."""

from __future__ import annotations

from torch import Tensor

from ...core.black_box import Region
from .candidates import Candidates


class CandidatePlaces:
    """Finds the candidates of regions, and remembers what it has found.

    What is found holds for one pass of the detector, or, where the candidates are the same for
    every frame (``Candidates.dense``), for all passes: see ``CandidateIndex``.
    """

    def __init__(self) -> None:
        self._labels: dict[int, tuple[Tensor, Tensor]] = {}
        self._regions: dict[Region, Tensor] = {}

    def index(self, candidates: Candidates, region: Region) -> Tensor:
        """Returns the (n,) candidates of the region's class whose places lie in the region.

        Args:
            candidates: Those of the pass, or of any where they are always the same.
            region: The disc and the class.
        """
        if region not in self._regions:
            index, places = self._of_label(candidates, region.label)
            center = places.new_tensor([region.x, region.y])
            near = (places - center).norm(dim=1) < region.radius
            self._regions[region] = index[near]
        return self._regions[region]

    def forget_regions(self) -> None:
        """Forgets the regions, of which each frame has others."""
        self._regions = {}

    def _of_label(self, candidates: Candidates, label: int) -> tuple[Tensor, Tensor]:
        if label not in self._labels:
            index = candidates.of_label(label)
            self._labels[label] = (index, candidates.places(index))
        return self._labels[label]


class CandidateIndex:
    """Gives the places of the candidates of each pass: anew, unless they are always the same."""

    def __init__(self) -> None:
        self._always = CandidatePlaces()

    def of(self, candidates: Candidates) -> CandidatePlaces:
        """Returns the places of a pass's candidates.

        Args:
            candidates: Those of the pass.
        """
        return self._always if candidates.dense else CandidatePlaces()

    def forget_regions(self) -> None:
        """Forgets the regions, of which each frame has others."""
        self._always.forget_regions()
