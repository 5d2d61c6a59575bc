"""Deletion and Insertion curves of many objects and maps of a frame, in as few passes as it takes.

- The whole frame is the first step of every Deletion and the last of every Insertion: one pass
  for all objects and all maps. The frame with an object's whole region removed is shared by the
  object's maps.
- Objects whose regions cannot influence each other are perturbed in the same pass.
- Steps go through the detector in batches; the detector may compute the changed part alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.black_box import BlackBox, Region
from ..core.grouping import share_passes
from .protocol import Protocol
from .removal import Schedule, local_regions, region_radii, removal_ranks
from .step_score import step_scores

#: The two curves of a map: points taken from the frame, and points put back into it.
KINDS = ('deletion', 'insertion')


@dataclass(frozen=True)
class Curves:
    """The curves of one map of K objects.

    Attributes:
        deletion: (K, S) score with the most salient 0, 1 / (S - 1), ... 1 of the region removed.
        insertion: (K, S) score with nothing but these of the region.
    """

    deletion: Tensor
    insertion: Tensor


@torch.no_grad()
def perturbation_curves(
    box: BlackBox,
    points: Tensor,
    maps: Mapping[str, Tensor],
    objects: Tensor,
    labels: Sequence[int],
    protocol: Protocol,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Curves]:
    """Measures maps of K objects of one frame.

    Args:
        box: The detector.
        points: (N, P) the frame.
        maps: (K, N) finite saliency for each name, as ``method/target``.
        objects: (K, 7) annotated boxes of the objects.
        labels: The detector's class index of each object.
        protocol: Steps, region, threshold, seed.
        kinds: Which curves to measure; one that is left out is NaN between its ends.

    Returns:
        The curves for each name, float64 on the CPU.
    """
    K, S = len(objects), protocol.steps
    scores = {name: torch.full((2, K, S), torch.nan, dtype=torch.float64) for name in maps}
    if K == 0 or not maps:
        return {name: Curves(*table) for name, table in scores.items()}
    inside = local_regions(points, objects, protocol.region_factor)
    ranks = {
        name: removal_ranks(values.to(points.device), inside, protocol.seed)
        for name, values in maps.items()
    }
    radii = region_radii(objects, protocol.region_factor).tolist()
    regions = [
        Region(*xy, radius, label)
        for xy, radius, label in zip(objects[:, :2].tolist(), radii, labels, strict=True)
    ]
    asker = _Asker(box, points, objects, regions, protocol.score_thr)
    whole = asker.ask([points], list(range(K)))[0]
    groups = share_passes(regions, box.reach(), lambda some: box.cost(some, points))
    for group in groups:
        plans = {
            name: [Schedule.of(table[k], inside[k], S) for k in group]
            for name, table in ranks.items()
        }
        without = torch.stack([~inside[k] for k in group]).all(dim=0)
        masks, places = [without], [[(name, kind, s) for name in maps for kind, s in _ends(S)]]
        for name, schedules in plans.items():
            for kind in (KINDS.index(wanted) for wanted in kinds):
                for s in range(1, S - 1):
                    keep = [p.inserted(s) if kind else p.deleted(s) for p in schedules]
                    masks.append(torch.stack(keep).all(dim=0))
                    places.append([(name, kind, s)])
        answers = asker.ask([points[keep] for keep in masks], group)
        for found, where in zip(answers, places, strict=True):
            for name, kind, s in where:
                scores[name][kind, group, s] = found
    for table in scores.values():
        table[0, :, 0] = table[1, :, -1] = whole
    return {name: Curves(*table) for name, table in scores.items()}


def _ends(steps: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Kind and step of the frame without the region: Deletion's last, Insertion's first."""
    return (0, steps - 1), (1, 0)


class _Asker:
    """Puts perturbed frames to the detector and scores its answers."""

    def __init__(
        self,
        box: BlackBox,
        points: Tensor,
        objects: Tensor,
        regions: Sequence[Region],
        score_thr: float,
    ) -> None:
        self.box, self.points, self.objects = box, points, objects
        self.regions, self.score_thr = regions, score_thr

    def ask(self, clouds: Sequence[Tensor], group: list[int]) -> list[Tensor]:
        """Returns for each cloud the (members,) scores of the group's objects."""
        regions = [self.regions[k] for k in group]
        answers = self.box.candidates_in(clouds, regions, self.score_thr, self.points)
        scores = [
            step_scores([answer[i] for answer in answers], self.objects[k])
            for i, k in enumerate(group)
        ]
        return list(torch.stack(scores, dim=1).to('cpu', torch.float64))
