"""Anchor heads: SECOND, PointPillars, SECOND-IoU's first stage, with one head or several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .base import HostCandidates


class AnchorCandidates(HostCandidates):
    """One candidate for each anchor, decoded by the head itself, direction classifier included.

    The half turn that the direction classifier chooses has no gradient.

    Args:
        head: An ``AnchorHeadSingle`` or ``AnchorHeadMulti``.
        batch: The batch of one frame.
        batch_size: 1.
        cls_preds: (1, H, W, anchors * classes), or for each of several heads (1, A, classes).
        box_preds: (1, H, W, anchors * code size), likewise.
        dir_cls_preds: (1, H, W, anchors * bins), likewise, or None.
    """

    def __init__(
        self,
        head: nn.Module,
        batch: dict[str, Any],
        batch_size: int,
        cls_preds: Tensor | list[Tensor],
        box_preds: Tensor | list[Tensor],
        dir_cls_preds: Tensor | list[Tensor] | None = None,
    ) -> None:
        # The class's method: on the instance it is shadowed while candidates are made.
        decode = type(head).generate_predicted_boxes
        classes, boxes = decode(head, batch_size, cls_preds, box_preds, dir_cls_preds)
        self.all_boxes = boxes[0, :, :7]
        self.classes = _all_classes(head, classes)

    def of_label(self, label: int) -> Tensor:
        """Returns the anchors that can be reported as that class."""
        return torch.isfinite(self.classes[:, label].detach()).nonzero().flatten()

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the decoded boxes."""
        return self.all_boxes[index]

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the anchors' class outputs."""
        return self.classes[index, label]


def _all_classes(head: nn.Module, classes: Tensor | list[Tensor]) -> Tensor:
    """(A, classes of the detector): separate heads know some of them, others are -inf."""
    if isinstance(classes, Tensor):
        return classes[0]
    rows = []
    for one, part in zip(classes, head.rpn_heads, strict=True):
        table = one.new_full((one.shape[1], head.num_class), -torch.inf)
        table[:, part.head_label_indices.to(one.device) - 1] = one[0]
        rows.append(table)
    return torch.cat(rows)
