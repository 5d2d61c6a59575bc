"""Center heads: CenterPoint on voxels and pillars, PillarNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.normalize import full_precision
from .base import HostCandidates, rows_of


class CenterCandidates(HostCandidates):
    """One candidate for each head and cell of the heat map.

    Where the configuration rectifies scores by a predicted IoU (``USE_IOU_TO_RECTIFY_SCORE``), so
    does ``scores``; ``logits`` are the heat map's before the sigmoid.

    Args:
        head: A ``CenterHead``.
        batch: The batch of one frame.
        batch_size: 1.
        pred_dicts: For each head, (1, C, H, W) maps: hm, center, center_z, dim (logarithms), rot
            (cosine, sine), and iou where it has one.
    """

    dense = True
    suppresses = True

    def __init__(
        self,
        head: nn.Module,
        batch: dict[str, Any],
        batch_size: int,
        pred_dicts: list[dict[str, Tensor]],
    ) -> None:
        self.head = head
        self.width = pred_dicts[0]['hm'].shape[-1]
        self.count = pred_dicts[0]['hm'][0, 0].numel()
        names = [n for n in ('center', 'center_z', 'dim', 'rot', 'iou') if n in pred_dicts[0]]
        self.maps = {
            name: torch.cat([rows_of(maps[name]) for maps in pred_dicts]) for name in names
        }
        #: For each class, its head and the (H * W,) row of its heat map.
        self.heats: dict[int, tuple[int, Tensor]] = {}
        for i, maps in enumerate(pred_dicts):
            for label, heat in zip(
                head.class_id_mapping_each_head[i].tolist(), maps['hm'][0].flatten(1), strict=True
            ):
                self.heats[label] = (i, heat)
        heats = [self.heats[label][1] for label in sorted(self.heats)]
        self.heat = torch.stack(heats)

    @classmethod
    def maps_of(cls, batch_size: int, pred_dicts: list[dict[str, Tensor]]) -> Any:
        """Returns the heads' maps."""
        return pred_dicts

    @classmethod
    def of_maps(cls, head: nn.Module, maps: Any) -> CenterCandidates:
        """Returns the candidates of what ``maps_of`` gave."""
        return cls(head, {}, 1, maps)

    def of_label(self, label: int) -> Tensor:
        """Returns the cells of the head that knows the label."""
        start = self.heats[label][0] * self.count
        return torch.arange(start, start + self.count, device=self.heat.device)

    def cells(self, index: Tensor) -> Tensor:
        """Returns the rows and columns of the cells."""
        cell = index % self.count
        return torch.stack([cell // self.width, cell % self.width], 1)

    def places(self, index: Tensor) -> Tensor:
        """Returns the centres of the cells."""
        return cell_places(self.head, self.cells(index).flip(1) + 0.5, self.head.feature_map_stride)

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the boxes of the cells' regression outputs."""
        maps = {name: full_precision(rows[index]) for name, rows in self.maps.items()}
        columns = self.cells(index).flip(1) + maps['center']
        return cell_boxes(self.head, columns, self.head.feature_map_stride, maps)

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the heat map before the sigmoid."""
        return self.heat[label, index % self.count]

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the heat map, weighted with the predicted IoU where the host does so."""
        score = self.logits(index, label).sigmoid()
        settings = self.head.model_cfg.POST_PROCESSING
        if not settings.get('USE_IOU_TO_RECTIFY_SCORE', False) or 'iou' not in self.maps:
            return score
        iou = ((self.maps['iou'][index, 0] + 1) * 0.5).clamp(0, 1)
        weight = score.new_tensor(settings.IOU_RECTIFIER)[label]
        return score ** (1 - weight) * iou**weight


def cell_boxes(
    head: nn.Module, columns: Tensor, stride: Tensor | float, maps: dict[str, Tensor]
) -> Tensor:
    """Decodes the boxes of a center head.

    Args:
        head: Has ``voxel_size`` and ``point_cloud_range``.
        columns: (n, 2) position x, y in cells.
        stride: Voxels a cell, one for all or (n, 1).
        maps: (n, C) center_z, dim (logarithms) and rot (cosine, sine) of the n cells.

    Returns:
        (n, 7) x, y, z, l, w, h, yaw.
    """
    xy = cell_places(head, columns, stride)
    yaw = torch.atan2(maps['rot'][:, 1:2], maps['rot'][:, :1])
    return torch.cat([xy, maps['center_z'], maps['dim'].exp(), yaw], 1)


def cell_places(head: nn.Module, columns: Tensor, stride: Tensor | float) -> Tensor:
    """Returns (n, 2) x, y in metres of positions in cells; arguments as in ``cell_boxes``."""
    size = columns.new_tensor([float(v) for v in head.voxel_size[:2]])
    low = columns.new_tensor([float(v) for v in head.point_cloud_range[:2]])
    return columns * stride * size + low
