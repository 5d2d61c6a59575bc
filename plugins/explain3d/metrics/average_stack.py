"""The detections of one class in any number of frames, with their saliency cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .average_protocol import Grid
from .average_shares import ClassShare


@dataclass(frozen=True)
class Stack:
    """K detections of one class in any number of frames, and the n cells that they have points in.

    Attributes:
        category: The class.
        grid: Its cells.
        frames: The frame of each detection.
        detections: (K,) int64 its index among the frame's predictions.
        matched: (K,) bool, whether it is a true positive; None without annotations.
        overlaps: (K,) highest IoU with an annotated object of the class.
        scores: (K,) scores.
        boxes: (K, 7) predicted boxes.
        inside: (K,) points in its box.
        around: (K,) points in the region around it.
        owner: (n,) which detection a cell belongs to.
        cell: (n,) which cell.
        points: (n,) points in it.
        sums: (T, n) float64 sum of their saliency.
    """

    category: str
    grid: Grid
    frames: tuple[str, ...]
    detections: Tensor
    matched: Tensor | None
    overlaps: Tensor
    scores: Tensor
    boxes: Tensor
    inside: Tensor
    around: Tensor
    owner: Tensor
    cell: Tensor
    points: Tensor
    sums: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def only(self, keep: Tensor) -> Stack:
        """Returns the detections that a (K,) mask keeps."""
        new = keep.long().cumsum(0) - 1
        cells = keep[self.owner]
        per_detection = ('detections', 'overlaps', 'scores', 'boxes', 'inside', 'around')
        return replace(
            self,
            frames=tuple(f for f, k in zip(self.frames, keep.tolist(), strict=True) if k),
            matched=None if self.matched is None else self.matched[keep],
            owner=new[self.owner[cells]],
            cell=self.cell[cells],
            points=self.points[cells],
            sums=self.sums[:, cells],
            **{name: getattr(self, name)[keep] for name in per_detection},
        )

    def weights(self, weight: str) -> tuple[Tensor, Tensor]:
        """Returns what each cell of a detection adds to sum (T, n) and weight (n,) of a mean."""
        points = self.points.double()
        if weight == 'points':
            return self.sums, points
        return self.sums / points, torch.ones_like(points)

    @property
    def mean_size(self) -> Tensor:
        """(3,) mean length, width and height, metres; NaN without detections."""
        return self.boxes[:, 3:6].double().mean(0)

    def regrouped(self, place: Tensor, grid: Grid) -> Stack:
        """Returns the same in cells of another grid.

        Args:
            place: Where each cell of this grid goes: its number in the other.
            grid: The other.
        """
        key, group = (self.owner * grid.size + place[self.cell]).unique(return_inverse=True)
        points = torch.bincount(group, self.points.double(), minlength=len(key)).long()
        sums = [torch.bincount(group, row, minlength=len(key)) for row in self.sums]
        return replace(
            self,
            grid=grid,
            owner=key // grid.size,
            cell=key % grid.size,
            points=points,
            sums=torch.stack(sums) if sums else self.sums.new_zeros(0, len(key)),
        )

    def coarser(self, factor: int) -> Stack:
        """Returns the same in cells that are so many times as long, wide and high (at most)."""
        grid = self.grid.coarser(factor)
        axes = [
            ((torch.arange(whole) - old_pad + 0.5) / old * new).floor().long() + pad
            for whole, old, old_pad, new, pad in zip(
                self.grid.shape, self.grid.cells, self.grid.pad, grid.cells, grid.pad, strict=True
            )
        ]
        x, y, z = torch.meshgrid(*axes, indexing='ij')
        place = (x * grid.shape[1] + y) * grid.shape[2] + z
        return self.regrouped(place.flatten(), grid)


def stacked(
    category: str, grid: Grid, parts: Sequence[tuple[str, ClassShare]], targets: int
) -> Stack:
    """Puts the shares of frames together.

    Args:
        category: The class.
        grid: Its cells.
        parts: Frame and share of each.
        targets: Number of targets, for no shares at all.
    """
    first, shares = 0, []
    for _, part in parts:
        shares.append(part.owner + first)
        first += len(part.scores)
    if not parts:
        none = torch.zeros(0, dtype=torch.long)
        return Stack(
            category, grid, (), none, none.bool(), none.double(), none.double(),
            torch.zeros(0, 7), none, none, none, none, none,
            torch.zeros(targets, 0, dtype=torch.float64),
        )  # fmt: skip

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for _, part in parts])

    return Stack(
        category=category,
        grid=grid,
        frames=tuple(frame for frame, part in parts for _ in range(len(part.scores))),
        matched=None if parts[0][1].matched is None else joined('matched'),
        owner=torch.cat(shares),
        sums=torch.cat([part.sums for _, part in parts], dim=1),
        **{
            name: joined(name)
            for name in (
                'detections', 'overlaps', 'scores', 'boxes', 'inside', 'around', 'cell', 'points',
            )
        },
    )  # fmt: skip
