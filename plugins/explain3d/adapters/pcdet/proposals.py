"""The way from a refined detection back through its proposal, which OpenPCDet cuts off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ...core.session import overridden


@contextmanager
def proposals_of(model: nn.Module, through: bool) -> Iterator[None]:
    """Decides whether the proposals of a second stage carry a graph while the context lasts.

    OpenPCDet chooses the proposals without a graph (a center head as first stage leaves them one):
    here they are constants, or each is exchanged for the box of the dense head that it equals.

    Args:
        model: The detector; without a second stage nothing happens.
        through: Whether the path through the proposals is kept.

    Raises:
        NotApplicableError: From the forward pass, if a proposal is none of the dense head's boxes.
    """
    roi_head = getattr(model, 'roi_head', None)
    if not isinstance(roi_head, nn.Module):
        yield
        return
    host = roi_head.proposal_layer

    def proposal_layer(batch: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        ready = batch.get('rois') is not None
        boxes = batch.get('batch_box_preds')
        result = host(batch, *args, **kwargs)
        rois = result['rois']
        if not through:
            result['rois'] = rois.detach()
        elif not ready and not rois.requires_grad:
            result['rois'] = with_graph(rois, boxes)
        return result

    with overridden(roi_head, 'proposal_layer', proposal_layer):
        yield


def with_graph(rois: Tensor, boxes: Tensor) -> Tensor:
    """Returns the proposals as the boxes that they equal.

    Args:
        rois: (1, R, C) without a graph; rows of zeros fill up.
        boxes: (1, A, C) boxes of the dense head, or (A, C), with a graph.

    Raises:
        NotApplicableError: If a proposal is none of the boxes.
    """
    pool = boxes.reshape(-1, boxes.shape[-1])
    rows = rois[0]
    used = rows.any(1)
    index = [_equal(part, pool) for part in rows[used].split(64)]
    found = torch.zeros_like(rows)
    if index:
        found[used] = pool[torch.cat(index)]
    return found[None]


@torch.no_grad()
def _equal(rows: Tensor, pool: Tensor) -> Tensor:
    distance, index = torch.cdist(rows, pool, p=float('inf')).min(1)
    if distance.any():
        raise NotApplicableError(
            'A proposal is none of the boxes of the dense head: expected the proposal layer to '
            'select among them. Explain the refinement alone (THROUGH_PROPOSALS: False).'
        )
    return index
