"""The way from a refined detection back through its proposal, which OpenPCDet cuts off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ...core.session import overridden

#: Entry of ``batch_dict``: which of the dense head's boxes the proposals are.
HELD = 'explain3d_proposals'


class Proposals:
    """The proposals of one frame: chosen in its first pass, and the same ones in every other.

    OpenPCDet chooses the proposals without a graph (a center head as first stage leaves them one):
    here they are constants, or each is exchanged for the box of the dense head that it equals.
    A pass with other features at the explained layer would choose others, and a detection would
    have no counterpart there.

    Args:
        model: The detector; without a second stage nothing happens.
        through: Whether the path through the proposals is kept.
    """

    def __init__(self, model: nn.Module, through: bool) -> None:
        self.head, self.through = getattr(model, 'roi_head', None), through
        self._index: Tensor | None = None
        self._first: dict[str, Tensor] = {}

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Decides about the proposals of the passes that are made while the context lasts.

        Raises:
            NotApplicableError: From the forward pass, if a proposal is none of the dense head's
                boxes.
        """
        if not isinstance(self.head, nn.Module):
            yield
            return
        host = self.head.proposal_layer

        def proposal_layer(batch: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
            ready = batch.get('rois') is not None
            boxes = batch.get('batch_box_preds')
            result = host(batch, *args, **kwargs)
            if not self.through:
                self._as_first(result, 'rois')
                result['rois'] = result['rois'].detach()
            elif not ready and not result['rois'].requires_grad:
                self._as_first(result)
                if self._index is None:
                    self._index = which_boxes(result['rois'], boxes)
                result['rois'] = with_graph(result['rois'], boxes, self._index)
                result[HELD] = self._index
            return result

        with overridden(self.head, 'proposal_layer', proposal_layer):
            yield

    def _as_first(self, result: dict[str, Any], *more: str) -> None:
        """Puts the first pass's labels, scores and ``more`` in the place of a later one's."""
        names = [n for n in ('roi_labels', 'roi_scores', *more) if n in result]
        if not self._first:
            self._first = {name: result[name].detach().clone() for name in names}
        result.update({name: self._first[name].clone() for name in names})


def which_boxes(rois: Tensor, boxes: Tensor) -> Tensor:
    """Returns which boxes the proposals equal.

    Args:
        rois: (1, R, C) without a graph; rows of zeros fill up.
        boxes: (1, A, C) boxes of the dense head, or (A, C).

    Returns:
        (R,) int64; -1 for a row of zeros.

    Raises:
        NotApplicableError: If a proposal is none of the boxes.
    """
    rows, pool = rois[0], boxes.reshape(-1, boxes.shape[-1])
    used = rows.any(1)
    found = rows.new_full((len(rows),), -1, dtype=torch.long)
    parts = [_equal(part, pool) for part in rows[used].split(64)]
    if parts:
        found[used] = torch.cat(parts)
    return found


def with_graph(rois: Tensor, boxes: Tensor, index: Tensor | None = None) -> Tensor:
    """Returns the proposals as the boxes that they equal.

    Args:
        rois: (1, R, C) without a graph; rows of zeros fill up.
        boxes: (1, A, C) boxes of the dense head, or (A, C), with a graph.
        index: (R,) which boxes; None: those that ``which_boxes`` finds.

    Returns:
        (1, R, C), rows of zeros where there is none.

    Raises:
        NotApplicableError: If a proposal is none of the boxes.
    """
    index = which_boxes(rois, boxes) if index is None else index
    pool = boxes.reshape(-1, boxes.shape[-1])
    found = torch.zeros_like(rois[0])
    found[index >= 0] = pool[index[index >= 0]]
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
