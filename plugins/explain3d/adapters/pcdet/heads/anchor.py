"""Anchor heads: SECOND, PointPillars, SECOND-IoU's first stage, with one head or several."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ....core.session import overridden
from .base import HostCandidates


class AnchorCandidates(HostCandidates):
    """One candidate for each anchor, decoded by the head itself, direction classifier included.

    The half turn that the direction classifier chooses has no gradient. Anchors stand in the order
    in which the head decodes them: cell by cell, or with several heads map by map.

    Args:
        head: An ``AnchorHeadSingle`` or ``AnchorHeadMulti``.
        batch: The batch of one frame.
        batch_size: 1.
        cls_preds: (1, H, W, anchors * classes), or for each of several heads (1, A, classes).
        box_preds: (1, H, W, anchors * code size), likewise.
        dir_cls_preds: (1, H, W, anchors * bins), likewise, or None.
    """

    dense = True

    def __init__(
        self,
        head: nn.Module,
        batch: dict[str, Any],
        batch_size: int,
        cls_preds: Tensor | list[Tensor],
        box_preds: Tensor | list[Tensor],
        dir_cls_preds: Tensor | list[Tensor] | None = None,
    ) -> None:
        self.head = head
        predictions = (cls_preds, box_preds, dir_cls_preds)
        #: (A, classes) which classes an anchor can be reported as; None: all.
        self._known: Tensor | None = None
        if _decodes_any_rows(head) and isinstance(cls_preds, Tensor):
            count = len(self.anchors)
            self._rows = [v if v is None else v.reshape(1, count, -1) for v in predictions]
            self.classes = self._rows[0][0].float()
            return
        self._rows = None
        classes, boxes = _decoded(head, *predictions)
        self.all_boxes = boxes[0, :, :7]
        if isinstance(classes, Tensor):
            self.classes = classes[0]
        else:
            self.classes, self._known = _all_classes(head, classes)

    @classmethod
    def maps_of(
        cls,
        batch_size: int,
        cls_preds: Tensor | list[Tensor],
        box_preds: Tensor | list[Tensor],
        dir_cls_preds: Tensor | list[Tensor] | None = None,
    ) -> Any:
        """Returns the three; what several heads give has no map, and is returned as it is."""
        return [_channels_first(value) for value in (cls_preds, box_preds, dir_cls_preds)]

    @classmethod
    def of_maps(cls, head: nn.Module, maps: Any) -> AnchorCandidates:
        """Returns the candidates of what ``maps_of`` gave."""
        return cls(head, {}, 1, *(_channels_last(value) for value in maps))

    @cached_property
    def anchors(self) -> Tensor:
        """(A, 7) the anchors."""
        tables = self.head.anchors
        if not isinstance(tables, list):
            return tables.reshape(-1, tables.shape[-1])
        if self.head.use_multihead:
            rows = [t.permute(3, 4, 0, 1, 2, 5).reshape(-1, t.shape[-1]) for t in tables]
            return torch.cat(rows)
        return torch.cat(tables, dim=-3).reshape(-1, tables[0].shape[-1])

    def of_label(self, label: int) -> Tensor:
        """Returns the anchors that can be reported as that class: those of heads that know it."""
        if self._known is None:
            return torch.arange(len(self.classes), device=self.classes.device)
        return self._known[:, label].nonzero().flatten()

    def cells(self, index: Tensor) -> Tensor:
        """Returns the rows and columns of the anchors."""
        _, height, width = self.head.anchors[0].shape[:3]
        if self.head.use_multihead:
            cell = index % (height * width)
        else:
            cell = index // (len(self.anchors) // (height * width))
        return torch.stack([cell // width, cell % width], 1)

    def places(self, index: Tensor) -> Tensor:
        """Returns the centres of the anchors."""
        return self.anchors[index, :2]

    def boxes(self, index: Tensor) -> Tensor:
        """Returns the decoded boxes."""
        if self._rows is None:
            return self.all_boxes[index]
        if len(index) == 0:
            return self.anchors.new_zeros(0, 7)
        # A region's candidates are few of many; the head decodes what anchors it has.
        with overridden(self.head, 'anchors', self.anchors[index]):
            rows = [v if v is None else v[:, index] for v in self._rows]
            return _decoded(self.head, *rows)[1][0, :, :7]

    def logits(self, index: Tensor, label: Tensor) -> Tensor:
        """Returns the anchors' class outputs."""
        return self.classes[index, label]


def _decoded(head: nn.Module, *predictions: Any) -> tuple[Any, Tensor]:
    """Returns what the head makes of its predictions for one frame: classes and boxes."""
    # The class's method: on the instance it is shadowed while candidates are made.
    return type(head).generate_predicted_boxes(head, 1, *predictions)


def _decodes_any_rows(head: nn.Module) -> bool:
    """Whether the head decodes row by row, as OpenPCDet's own template does."""
    method = type(head).generate_predicted_boxes
    return method.__qualname__ == 'AnchorHeadTemplate.generate_predicted_boxes'


def _all_classes(head: nn.Module, classes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(A, classes of the detector) outputs of separate heads, and which of them a head knows."""
    rows, known = [], []
    for one, part in zip(classes, head.rpn_heads, strict=True):
        table = one.new_full((one.shape[1], head.num_class), -torch.inf)
        own = part.head_label_indices.to(one.device) - 1
        table[:, own] = one[0]
        rows.append(table)
        known.append(torch.zeros_like(table, dtype=torch.bool).index_fill_(1, own, True))
    return torch.cat(rows), torch.cat(known)


def _channels_first(value: Any) -> Any:
    return value.permute(0, 3, 1, 2) if isinstance(value, Tensor) and value.dim() == 4 else value


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 4:
        return value.permute(0, 2, 3, 1).contiguous()
    return value
