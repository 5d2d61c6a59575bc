"""Anchor heads: the maps at a detection's cell, in the channels of its anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from .....core.errors import NotApplicableError
from .....core.override import override
from .....lmd.detections import LOGIT, Reading
from ...heads.anchor import AnchorCandidates
from .base import HeadReadings, several_levels

_DELTAS = ('dx', 'dy', 'dz', 'dl', 'dw', 'dh', 'dyaw')


class AnchorReadings(HeadReadings):
    """``Anchor3DHead`` of one level with a direction classifier."""

    candidates_type = AnchorCandidates

    @override
    def candidates(self) -> AnchorCandidates:
        """Returns one candidate for each anchor."""
        kinds: dict[str, list[Tensor]] = {}
        for key, value in self.paths().items():
            kinds.setdefault(key.split('.')[0], []).append(value[None])
        if len(kinds['0']) != 1:
            raise several_levels()
        if '2' not in kinds:
            raise NotApplicableError(
                'The anchor head has no direction classifier: expected one with '
                'use_direction_classifier=True.'
            )
        return AnchorCandidates(self.head, kinds['0'], kinds['1'], kinds['2'])

    @override
    def read(self, candidates: AnchorCandidates, index: Tensor, labels: Tensor) -> list[Reading]:
        """Returns the readings: the logit, the deltas against the anchor, the directions."""
        head, cells = self.head, candidates.cells(index)
        height, width = candidates.map_sizes[0]
        anchor = index % (len(candidates.anchors) // (height * width))
        rows = torch.arange(len(index), device=index.device)

        def reading(attribute: str, kind: int, channel: Tensor) -> Reading:
            return Reading(attribute, f'{self.name}.{kind}.0', rows, channel, cells)

        found = [reading(LOGIT, 0, anchor * head.num_classes + labels)]
        names = (*_DELTAS, *('vx', 'vy')[: max(head.box_code_size - len(_DELTAS), 0)])
        size = head.box_code_size
        found += [reading(n, 1, anchor * size + i) for i, n in enumerate(names[:size])]
        return [*found, *(reading(f'direction_{i}', 2, anchor * 2 + i) for i in range(2))]
