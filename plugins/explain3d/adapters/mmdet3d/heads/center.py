"""Center heads: CenterPoint on voxels and pillars."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.normalize import full_precision
from ...common.candidates import Candidates


class CenterCandidates(Candidates):
    """One candidate for each task and cell of the heat map, as ``CenterPointBBoxCoder`` decodes.

    Args:
        head: A ``CenterHead``.
        tasks: For each task, a list with one dict of (1, C, H, W) maps: heatmap, reg, height, dim
            and rot (sine, cosine).
    """

    dense = True

    def __init__(self, head: nn.Module, tasks: list[list[dict[str, Tensor]]], *_: Any, **__: Any):
        self.head = head
        self.maps = [task[0] for task in tasks]
        self.height, self.width = self.maps[0]['heatmap'].shape[-2:]
        self.cells_per_task = self.height * self.width
        counts = torch.tensor(head.num_classes)
        self.first_label = (counts.cumsum(0) - counts).tolist()
        # Labels count through the tasks, so that row `label` of all heat maps is that class's.
        self.heat = torch.cat([m['heatmap'][0].flatten(1) for m in self.maps])
        self.regression = self._rows(('height', 'dim', 'rot', 'reg'))

    def _rows(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """(tasks * H * W, C) rows of each map that the head has."""
        return {
            name: torch.cat([m[name][0].flatten(1).T for m in self.maps])
            for name in names
            if name in self.maps[0]
        }

    def _task_of(self, label: int) -> int:
        return max(task for task, first in enumerate(self.first_label) if first <= label)

    def of_label(self, label: int) -> Tensor:
        """Returns the cells of the label's task."""
        start = self._task_of(label) * self.cells_per_task
        return torch.arange(
            start, start + self.cells_per_task, device=self.maps[0]['heatmap'].device
        )

    def cells(self, index: Tensor) -> Tensor:
        """Returns the rows and columns of the cells."""
        cell = index % self.cells_per_task
        return torch.stack([cell // self.width, cell % self.width], 1)

    def places(self, index: Tensor) -> Tensor:
        """Returns the centres of the cells."""
        columns = self.cells(index).flip(1) + 0.5
        coder = self.head.bbox_coder
        size = columns.new_tensor(coder.voxel_size[:2]) * coder.out_size_factor
        return columns * size + columns.new_tensor(coder.pc_range[:2])

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the boxes of the cells' regression outputs."""
        maps = {name: rows[index] for name, rows in self.regression.items()}
        cell = index % self.cells_per_task
        columns = torch.stack([cell % self.width, cell // self.width], 1)
        # Half precision has no room for a cell's index and its fraction; the host has float32 too.
        columns = columns.to(full_precision(maps['dim']).dtype) + maps.get('reg', 0.5)
        coder = self.head.bbox_coder
        size = columns.new_tensor(coder.voxel_size[:2]) * coder.out_size_factor
        xy = columns * size + columns.new_tensor(coder.pc_range[:2])
        dim = maps['dim'].exp() if self.head.norm_bbox else maps['dim']
        yaw = torch.atan2(maps['rot'][:, :1], maps['rot'][:, 1:2])
        return torch.cat([xy, maps['height'], dim, yaw], 1)  # The head's height is the centre's.

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the heat map before the sigmoid."""
        return self.heat[label, index % self.cells_per_task]
