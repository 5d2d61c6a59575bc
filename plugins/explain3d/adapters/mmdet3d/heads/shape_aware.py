"""Shape-aware grouping heads: SSN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.override import override
from .anchor import AnchorCandidates


class ShapeAwareCandidates(AnchorCandidates):
    """One candidate for each anchor; the head gives rows, on a map of its own for each group.

    Args:
        head: A ``ShapeAwareHead``.
        cls_scores: One level, (1, A, classes).
        bbox_preds: One level, (1, A, code size).
        dir_cls_preds: One level, (1, A, 2).
    """

    def __init__(
        self,
        head: nn.Module,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        dir_cls_preds: list[Tensor],
        *_: Any,
        **__: Any,
    ) -> None:
        self.head = head
        self.classes = torch.cat([level[0] for level in cls_scores])
        self.deltas = torch.cat([level[0] for level in bbox_preds])
        self.directions = torch.cat([level[0] for level in dir_cls_preds])
        self.anchors = self._anchors(cls_scores)
        self.map_sizes = ()  # A map of its own for each group.

    @override
    def _anchors(self, maps: list[Tensor]) -> Tensor:
        sizes = self.head.featmap_sizes
        levels = self.head.prior_generator.grid_anchors(sizes, device=maps[0].device)
        anchors = [anchor for level in levels for anchor in level]
        return torch.cat(anchors).reshape(-1, self.head.box_code_size)
