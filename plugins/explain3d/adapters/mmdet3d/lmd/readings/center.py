"""Center heads: the maps at a detection's cell."""

from __future__ import annotations

import torch
from torch import Tensor

from .....core.override import override
from .....lmd.detections import LOGIT, Reading
from ...heads.center import CenterCandidates
from .base import HeadReadings, several_levels

#: Attributes of a head's maps, channel by channel; the size is a logarithm where boxes are
#: normalised.
CHANNELS = {
    'reg': ('dx', 'dy'),
    'height': ('z',),
    'dim': ('l', 'w', 'h'),
    'rot': ('sin_yaw', 'cos_yaw'),
    'vel': ('vx', 'vy'),
}


class CenterReadings(HeadReadings):
    """``CenterHead``: a heat map and the maps of ``CHANNELS`` for each task."""

    candidates_type = CenterCandidates

    @override
    def candidates(self) -> CenterCandidates:
        """Returns one candidate for each task and cell."""
        tasks: dict[int, dict[str, Tensor]] = {}
        for key, value in self.paths().items():
            task, level, kind = key.split('.')
            if level != '0':
                raise several_levels()
            tasks.setdefault(int(task), {})[kind] = value[None]
        return CenterCandidates(self.head, [[tasks[task]] for task in sorted(tasks)])

    @override
    def read(self, candidates: CenterCandidates, index: Tensor, labels: Tensor) -> list[Reading]:
        """Returns the readings, task by task."""
        log = 'log_' if self.head.norm_bbox else ''
        cells, tasks = candidates.cells(index), index // candidates.cells_per_task
        found = []
        for task, maps in enumerate(candidates.maps):
            start = f'{self.name}.{task}.0'
            rows = (tasks == task).nonzero().flatten()
            channel = labels[rows] - candidates.first_label[task]
            found.append(Reading(LOGIT, f'{start}.heatmap', rows, channel, cells[rows]))
            for kind, attributes in CHANNELS.items():
                for number, attribute in enumerate(attributes if kind in maps else ()):
                    title = log + attribute if kind == 'dim' else attribute
                    channel = torch.full_like(rows, number)
                    found.append(Reading(title, f'{start}.{kind}', rows, channel, cells[rows]))
        return found
