"""Anchor heads: SECOND, PointPillars, FreeAnchor, MVX-Net."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...common.candidates import Candidates, with_geometric_center


class AnchorCandidates(Candidates):
    """One candidate for each anchor, as ``Base3DDenseHead`` decodes them.

    Args:
        head: An ``Anchor3DHead``.
        cls_scores: For each level, (1, anchors * classes, H, W).
        bbox_preds: For each level, (1, anchors * code size, H, W).
        dir_cls_preds: For each level, (1, anchors * 2, H, W).
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
        self.classes = _rows(cls_scores, head.num_classes)
        self.deltas = _rows(bbox_preds, head.box_code_size)
        self.directions = _rows(dir_cls_preds, 2)
        self.anchors = self._anchors(cls_scores)

    def _anchors(self, maps: list[Tensor]) -> Tensor:
        """(A, code size) the anchors of all levels, in the order of the rows."""
        sizes = [m.shape[-2:] for m in maps]
        levels = self.head.prior_generator.grid_anchors(sizes, device=maps[0].device)
        return torch.cat([level.reshape(-1, self.head.box_code_size) for level in levels])

    def of_label(self, label: int) -> Tensor:
        """Returns all anchors: each can be reported as any class."""
        return torch.arange(len(self.anchors), device=self.anchors.device)

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the decoded boxes, turned as the direction classifier says."""
        boxes = self.head.bbox_coder.decode(self.anchors[index], self.deltas[index])
        turned = self._turned(boxes[:, 6], self.directions[index].argmax(1))
        return with_geometric_center(torch.cat([boxes[:, :6], turned[:, None]], 1))

    def _turned(self, yaw: Tensor, direction: Tensor) -> Tensor:
        """Moves the yaw to the half turn that the direction classifier chose.

        Only a multiple of pi is added, and that without a graph: the choice has no gradient.
        """
        start = yaw - self.head.dir_offset
        half_turns = torch.floor(start / torch.pi + self.head.dir_limit_offset)
        return yaw + ((direction - half_turns) * torch.pi).detach()

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the anchors' class outputs."""
        return self.classes[index, label]

    def scores(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns their sigmoid, or softmax where the head was trained with it."""
        if self.head.use_sigmoid_cls:
            return self.logits(index, label).sigmoid()
        return self.classes[index].softmax(1).gather(1, label[:, None])[:, 0]


def _rows(maps: list[Tensor], width: int) -> Tensor:
    """(A, width) out of (1, anchors * width, H, W) maps."""
    return torch.cat([m[0].permute(1, 2, 0).reshape(-1, width) for m in maps])
