"""Fully sparse center heads: VoxelNeXt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.capture import cell_order
from ....core.errors import NotApplicableError
from ....core.normalize import full_precision
from .base import HostCandidates
from .center import cell_boxes, cell_places


class VoxelNeXtCandidates(HostCandidates):
    """One candidate for each head and occupied voxel of the bird's-eye view.

    With an IoU branch (Waymo) scores are rectified by it, as the host does.

    Args:
        head: A ``VoxelNeXtHead``.
        batch: The batch of one frame.
        batch_size: 1.
        pred_dicts: For each head, (N, C) rows: hm, center, center_z, dim (logarithms), rot
            (cosine, sine), and iou where it has one.
        voxel_indices: (N, 3) batch, y, x of the voxels.

    Raises:
        NotApplicableError: If the head merges flipped copies of the frame.
    """

    suppresses = True

    def __init__(
        self,
        head: nn.Module,
        batch: dict[str, Any],
        batch_size: int,
        pred_dicts: list[dict[str, Tensor]],
        voxel_indices: Tensor,
        *_: Any,
    ) -> None:
        if head.double_flip:
            raise NotApplicableError(
                'The head merges predictions of flipped copies of a frame: expected one pass a '
                'frame. Use the configuration without DOUBLE_FLIP.'
            )
        self.head = head
        self.count = len(voxel_indices)
        order = cell_order(voxel_indices)  # A candidate is the same one in each pass.
        self.columns = voxel_indices[order][:, [2, 1]]
        names = [n for n in ('center', 'center_z', 'dim', 'rot', 'iou') if n in pred_dicts[0]]
        self.maps = {name: torch.cat([rows[name][order] for rows in pred_dicts]) for name in names}
        self.heats: dict[int, tuple[int, Tensor]] = {}
        for i, rows in enumerate(pred_dicts):
            labels = head.class_id_mapping_each_head[i].tolist()
            for label, heat in zip(labels, rows['hm'][order].T, strict=True):
                self.heats[label] = (i, heat)
        self.heat = torch.stack([self.heats[label][1] for label in sorted(self.heats)])

    def of_label(self, label: int) -> Tensor:
        """Returns the voxels of the head that knows the label."""
        start = self.heats[label][0] * self.count
        return torch.arange(start, start + self.count, device=self.heat.device)

    def choice(self) -> Tensor:
        """Returns the voxels."""
        return self.columns

    def places(self, index: Tensor) -> Tensor:
        """Returns the centres of the voxels."""
        columns = self.columns[index % self.count] + 0.5
        return cell_places(self.head, columns, self.head.feature_map_stride)

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the boxes of the voxels' regression outputs."""
        maps = {name: full_precision(rows[index]) for name, rows in self.maps.items()}
        columns = self.columns[index % self.count] + maps['center']
        return cell_boxes(self.head, columns, self.head.feature_map_stride, maps)

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the heat map before the sigmoid."""
        return self.heat[label, index % self.count]

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the heat map, weighted with the predicted IoU where there is one."""
        score = self.logits(index, label).sigmoid()
        if not self.head.iou_branch:
            return score
        iou = ((self.maps['iou'][index, 0] + 1) * 0.5).clamp(0, 1)
        weight = score.new_tensor(list(self.head.rectifier))[label]
        return score ** (1 - weight) * iou**weight
