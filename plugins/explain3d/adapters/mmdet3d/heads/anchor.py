"""Anchor heads: SECOND, PointPillars, FreeAnchor, MVX-Net."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ...common.candidates import Candidates, with_geometric_center

#: Anchors of a generator, which builds them anew for every frame: by sizes of maps, device, width.
_ANCHORS: WeakKeyDictionary[Any, dict[tuple, Tensor]] = WeakKeyDictionary()


class AnchorCandidates(Candidates):
    """One candidate for each anchor, as ``Base3DDenseHead`` decodes them.

    Args:
        head: An ``Anchor3DHead``.
        cls_scores: For each level, (1, anchors * classes, H, W).
        bbox_preds: For each level, (1, anchors * code size, H, W).
        dir_cls_preds: For each level, (1, anchors * 2, H, W).
    """

    dense = True

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
        self.map_sizes = [tuple(m.shape[-2:]) for m in cls_scores]

    def _anchors(self, maps: list[Tensor]) -> Tensor:
        """(A, code size) the anchors of all levels, in the order of the rows."""
        sizes = [m.shape[-2:] for m in maps]
        generator, device = self.head.prior_generator, maps[0].device
        known = _ANCHORS.setdefault(generator, {})
        key = (tuple(map(tuple, sizes)), device, self.head.box_code_size)
        if key not in known:
            levels = generator.grid_anchors(sizes, device=device)
            known[key] = torch.cat([level.reshape(-1, key[2]) for level in levels])
        return known[key]

    def of_label(self, label: int) -> Tensor:
        """Returns all anchors: each can be reported as any class."""
        return torch.arange(len(self.anchors), device=self.anchors.device)

    def cells(self, index: Tensor) -> Tensor:
        """Returns the rows and columns of the anchors."""
        if len(self.map_sizes) != 1:
            raise self._nowhere()
        height, width = self.map_sizes[0]
        cell = index // (len(self.anchors) // (height * width))
        return torch.stack([cell // width, cell % width], 1)

    def places(self, index: Tensor) -> Tensor:
        """Returns the centres of the anchors."""
        return self.anchors[index, :2]

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

    def above(self, label: int, score_thr: float) -> Tensor:
        """Returns the indices of the anchors above a score, without a copy of all rows."""
        if not self.head.use_sigmoid_cls or not isinstance(self.classes, _MapRows):
            return super().above(label, score_thr)
        return (self.classes.column(label).sigmoid() > score_thr).nonzero().flatten()


class _MapRows:
    """Rows of a (1, anchors * width, H, W) map, none of which is copied before it is asked for."""

    def __init__(self, values: Tensor, width: int) -> None:
        self.values = values[0].reshape(-1, width, values.shape[2] * values.shape[3])

    def column(self, number: int) -> Tensor:
        """Returns one column of all rows."""
        return self.values[:, number].T.flatten()

    def __getitem__(self, index: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        index, column = index if isinstance(index, tuple) else (index, slice(None))
        count = len(self.values)
        return self.values[index % count, column, index // count]


def _rows(maps: list[Tensor], width: int) -> Tensor | _MapRows:
    """(A, width) out of (1, anchors * width, H, W) maps."""
    if len(maps) == 1:
        return _MapRows(maps[0], width)
    return torch.cat([m[0].permute(1, 2, 0).reshape(-1, width) for m in maps])
