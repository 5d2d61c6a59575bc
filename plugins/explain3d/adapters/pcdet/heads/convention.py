"""Detectors of no known family that return their detections as OpenPCDet's do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ....core.errors import NotApplicableError
from .base import HostCandidates


class ConventionCandidates(HostCandidates):
    """Reads what ``Detector3DTemplate.post_processing`` gets, whoever computed it.

    That is ``final_box_dicts`` (boxes after suppression, which only selects and so keeps their
    graph), or ``batch_box_preds`` and ``batch_cls_preds``. Of the former the logit is taken to be
    the inverse sigmoid of the score.

    Args:
        head: The head.
        batch: The batch of one frame after the detector's last module.
    """

    intercepts = 'post_processing'
    of_detector = True
    chosen_by = 'suppression, or a head of no known family'

    def __init__(self, head: nn.Module, batch: dict[str, Any], *_: Any, **__: Any) -> None:
        self._chosen: Tensor | None = batch.get('rois')
        if 'final_box_dicts' in batch:
            found = batch['final_box_dicts'][0]
            self.all_boxes = self._chosen = found['pred_boxes'][:, :7]
            self.raw = torch.logit(found['pred_scores'], eps=1e-6)[:, None]
            self.labels = found['pred_labels'].long() - 1
        elif isinstance(batch.get('batch_cls_preds'), Tensor) and 'batch_box_preds' in batch:
            self.all_boxes = batch['batch_box_preds'].flatten(0, -2)[:, :7]
            self.raw = _logits(batch).flatten(0, -2)
            known = batch.get('roi_labels', batch.get('batch_pred_labels'))
            self.labels = None
            if batch.get('has_class_labels', False) and known is not None:
                self.labels = known.flatten() - 1
                self.raw = self.raw.amax(1, keepdim=True)
        else:
            raise NotApplicableError(
                f'{type(head).__name__} leaves neither final_box_dicts nor batch_cls_preds and '
                'batch_box_preds in the batch: expected one of them, as heads of OpenPCDet do. '
                'Name the family whose raw outputs it has (HEAD in the section EXPLAINER).'
            )

    def of_label(self, label: int) -> Tensor:
        """Returns the candidates that have, or can have, that label."""
        if self.labels is not None:
            return (self.labels == label).nonzero().flatten()
        return torch.arange(len(self.all_boxes), device=self.all_boxes.device)

    def choice(self) -> Tensor | None:
        """Returns the boxes after suppression, or the proposals; None: there are neither."""
        return None if self._chosen is None else self._chosen.detach()

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the boxes."""
        return self.all_boxes[index]

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the class output, or the inverse sigmoid of the score."""
        return self.raw[index, 0 if self.raw.shape[1] == 1 else label]


def _logits(batch: dict[str, Any]) -> Tensor:
    classes = batch['batch_cls_preds']
    return torch.logit(classes, eps=1e-6) if batch.get('cls_preds_normalized') else classes
