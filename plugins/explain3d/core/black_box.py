"""A detector as a function from clouds to candidates, for what asks it many questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .structures import Detections


@dataclass(frozen=True)
class Region:
    """A disc in the bird's-eye view and the class that is looked for in it.

    Attributes:
        x: Centre, metres, LiDAR frame.
        y: Centre.
        radius: Metres.
        label: Class index of the detector.
    """

    x: float
    y: float
    radius: float
    label: int


class BlackBox(ABC):
    """Answers which boxes a detector would report for a cloud, before NMS and any caps.

    Without caps (``nms_pre``, ``max_num``) a candidate depends on the points within the receptive
    field of its cell and on nothing else, so that questions about objects that are far enough
    apart share a pass.

    Attributes:
        batch_size: Clouds that go through the detector at a time.
        passes: Clouds that went through the detector so far.
        work: The same, where a pass over a part of the frame counts as that part.
        name: Tells detectors apart, as a digest of the weights does.
    """

    def __init__(self, batch_size: int = 4) -> None:
        self.batch_size = batch_size
        self.passes = 0
        self.work = 0.0
        self.name = ''

    @abstractmethod
    def candidates(self, clouds: Sequence[Tensor], score_thr: float) -> list[Detections]:
        """Returns all candidates of each cloud whose score is above ``score_thr``.

        A candidate counts once for each class for which its score is above the threshold.

        Args:
            clouds: Of each frame, (N, P) points as the detector gets them; may be empty.
            score_thr: Score in [0, 1).
        """

    @abstractmethod
    def candidates_in(
        self,
        clouds: Sequence[Tensor],
        regions: Sequence[Region],
        score_thr: float,
        base: Tensor | None = None,
        anywhere: bool = False,
    ) -> list[list[Detections]]:
        """Returns the candidates whose anchors or cells lie in regions, of the regions' classes.

        Args:
            clouds: As in ``candidates``.
            regions: R regions, the same for all clouds.
            score_thr: As in ``candidates``.
            base: A cloud from which all ``clouds`` differ by points inside of the regions alone.
                With it, a box may compute what changes, and no more.
            anywhere: Whether they may differ anywhere: then a box may compute what the regions'
                candidates see, and no more.

        Returns:
            For each cloud, R sets of candidates.
        """

    def reach(self) -> tuple[float, float] | None:
        """Returns how far from a cell (x, y; metres) points can change its candidates.

        None where that is not bounded or not known: then no two objects share a pass.
        """
        return None

    def cost(self, regions: Sequence[Region], base: Tensor, anywhere: bool = False) -> float:
        """Returns the part of a whole pass that ``candidates_in`` computes for a cloud."""
        return 1.0
