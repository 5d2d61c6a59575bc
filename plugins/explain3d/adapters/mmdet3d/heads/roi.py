"""Refinement heads of two-stage detectors: PV-RCNN, Part-A2.

The proposals are detached by the host: only the refinement is explained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...common.candidates import Candidates, with_geometric_center


class PVRCNNCandidates(Candidates):
    """One candidate for each proposal, as ``PVRCNNBBoxHead.get_results`` decodes them.

    Args:
        head: A ``PVRCNNBBoxHead``.
        rois: (R, 8) batch index and box (bottom centre) of the proposals.
        scores: (R, 1) refinement logits, or one for each class, of which the largest counts.
        deltas: (R, 7) refinement in the proposal's frame.
        labels: One (R,) tensor, the proposals' labels.
    """

    intercepts = 'get_results'
    chosen_by = 'a proposal layer'

    def __init__(
        self, head: nn.Module, rois: Tensor, scores: Tensor, deltas: Tensor, labels: list[Tensor],
        *_: Any, **__: Any,
    ) -> None:  # fmt: skip
        self.head = head
        self.rois = rois[:, 1:].detach()
        self.raw = scores.reshape(len(rois), -1).amax(1)
        self.deltas = deltas
        self.labels = labels[0]

    def of_label(self, label: int) -> Tensor:
        """Returns the proposals of that label."""
        return (self.labels == label).nonzero().flatten()

    def choice(self) -> Tensor:
        """Returns the proposals."""
        return self.rois

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the refined proposals."""
        rois = self.rois[index]
        local = torch.cat([torch.zeros_like(rois[:, :3]), rois[:, 3:]], 1)
        boxes = self.head.bbox_coder.decode(local, self.deltas[index])
        cos, sin = rois[:, 6].cos(), rois[:, 6].sin()
        x, y, z = boxes[:, :3].unbind(1)
        center = torch.stack([x * cos - y * sin, x * sin + y * cos, z], 1) + rois[:, :3]
        return with_geometric_center(torch.cat([center, boxes[:, 3:]], 1))

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the refinement score; a proposal keeps its label."""
        return self.raw[index]


class PartA2Candidates(PVRCNNCandidates):
    """The same for ``PartA2BboxHead``, which reports the logit as the score."""

    reports_logits = True
