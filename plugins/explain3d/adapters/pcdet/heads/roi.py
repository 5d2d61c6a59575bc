"""Refinement heads of two-stage detectors: PV-RCNN, PV-RCNN++, Voxel R-CNN, Part-A2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..proposals import HELD
from .base import HostCandidates


class RoICandidates(HostCandidates):
    """One candidate for each proposal, refined.

    Proposals that carry a graph (``THROUGH_PROPOSALS``, see ``Proposals``) pass it on; others are
    taken as constants, as the host does.

    Args:
        head: A ``RoIHeadTemplate``.
        batch: The batch of one frame, with ``roi_labels`` (1, R).
        batch_size: 1.
        rois: (1, R, 7 + C) the proposals.
        cls_preds: (R, 1 or classes) refinement logits.
        box_preds: (R, code size) refinement in the proposal's frame.
    """

    chosen_by = 'a proposal layer'

    def __init__(
        self,
        head: nn.Module,
        batch: dict[str, Any],
        batch_size: int,
        rois: Tensor,
        cls_preds: Tensor,
        box_preds: Tensor,
    ) -> None:
        self.head = head
        self.rois = rois[0]
        self._choice = batch.get(HELD, self.rois).detach()
        self.deltas = box_preds.reshape(len(self.rois), -1)
        classes = cls_preds.reshape(len(self.rois), -1)
        self.raw, best = classes.max(1)
        has_labels = batch.get('has_class_labels', False)
        self.labels = batch['roi_labels'][0] - 1 if has_labels else best

    def of_label(self, label: int) -> Tensor:
        """Returns the proposals of that label."""
        return (self.labels == label).nonzero().flatten()

    def choice(self) -> Tensor:
        """Returns the proposals, or which they are of the dense head's boxes."""
        return self._choice

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the refined proposals.

        The refinement is decoded in the proposal's frame, turned by its yaw and moved to its
        centre, as ``RoIHeadTemplate.generate_predicted_boxes`` does.
        """
        deltas, rois = self.deltas[index], self.rois[index][:, : self.deltas.shape[1]]
        local = torch.cat([torch.zeros_like(rois[:, :3]), rois[:, 3:]], 1)
        boxes = self.head.box_coder.decode_torch(deltas, local)
        cos, sin = rois[:, 6].cos(), rois[:, 6].sin()
        x, y, z = boxes[:, :3].unbind(1)
        center = torch.stack([x * cos - y * sin, x * sin + y * cos, z], 1) + rois[:, :3]
        # The host turns the centre alone: the yaw is the sum of both from the coder.
        return torch.cat([center, boxes[:, 3:7]], 1)

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the refinement score; a proposal keeps its label."""
        return self.raw[index]
