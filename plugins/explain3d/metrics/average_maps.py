"""Average saliency maps of a class (4.1 and Figs. 4 and 7 of FFAM), from the shares of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.errors import InputError
from .average_protocol import AverageProtocol, Grid
from .average_shares import ClassShare, FrameShare

#: Sets of detections: true positives, false positives, and both.
SETS = ('tp', 'fp', 'all')


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


@dataclass(frozen=True)
class AverageMap:
    """The average map of one set of one class; X, Y, Z cells along length, width and height.

    Attributes:
        category: The class.
        grid: Its cells; index 0 is at the rear, the right and the bottom.
        targets: Names of the T targets.
        saliency: (T, X, Y, Z) float64 mean saliency; NaN where there is no point.
        points: (X, Y, Z) int64 points that went in.
        objects: (X, Y, Z) int64 detections that had them.
        size: (3,) mean length, width and height of their boxes, metres.
        count: Detections.
        weight: How cells were averaged, see ``AverageProtocol``.
    """

    category: str
    grid: Grid
    targets: tuple[str, ...]
    saliency: Tensor
    points: Tensor
    objects: Tensor
    size: Tensor
    count: int
    weight: str = 'points'

    def of(self, target: str) -> Tensor:
        """(X, Y, Z) the map of one target."""
        return self.saliency[self.targets.index(target)]

    def seen_along(self, target: str, axis: int) -> Tensor:
        """Returns the mean of a target's map along an axis, as all that fell into a column of cells.

        Args:
            target: Its name.
            axis: 0 the length, 1 the width, 2 the height.

        Returns:
            The two other axes' cells; NaN where there is no point.
        """
        weights = (self.points if self.weight == 'points' else self.objects).double()
        sums = torch.where(weights > 0, self.of(target) * weights, 0.0).sum(axis)
        weights = weights.sum(axis)
        return sums / torch.where(weights > 0, weights, torch.nan)


def average(stack: Stack, targets: Sequence[str], weight: str = 'points') -> AverageMap:
    """Averages saliency cell by cell.

    Args:
        stack: K detections, also 0.
        targets: Names of the T targets.
        weight: See ``AverageProtocol``.
    """
    size, shape = stack.grid.size, stack.grid.shape
    values, weights = stack.weights(weight)
    total = torch.bincount(stack.cell, weights, minlength=size)
    sums = [torch.bincount(stack.cell, row, minlength=size) for row in values]
    sums = torch.stack(sums) if sums else total.new_zeros(0, size)
    points = torch.bincount(stack.cell, stack.points.double(), minlength=size).long()
    return AverageMap(
        category=stack.category,
        grid=stack.grid,
        targets=tuple(targets),
        saliency=(sums / torch.where(total > 0, total, torch.nan)).view(-1, *shape),
        points=points.view(shape),
        objects=torch.bincount(stack.cell, minlength=size).view(shape),
        size=stack.mean_size,
        count=len(stack),
        weight=weight,
    )


class MapCollection:
    """The shares of all frames, put together; the order in which they came does not matter.

    A frame that comes twice, as samplers repeat frames to give every process equally many, counts
    once. Shares of two folders or processes are merged by handing over both.

    Args:
        shares: Of any number of frames, made with ``protocol``.
        protocol: How.

    Attributes:
        frames: Names of the frames.
        explained: What made the maps.
        annotated: Whether true and false positives can be told apart.

    Raises:
        InputError: If there are none, or two frames were explained in different ways, or only some
            have annotations.
    """

    def __init__(self, shares: Iterable[FrameShare], protocol: AverageProtocol) -> None:
        self.protocol = protocol
        self._shares = list({share.frame: share for share in shares}.values())
        self._shares.sort(key=lambda share: share.frame)
        if not self._shares:
            raise InputError('Expected the maps of at least one frame, received none.')
        first = self._shares[0]
        for share in self._shares:
            _check_same(first, share)
        self.frames = tuple(share.frame for share in self._shares)
        self.explained, self.annotated = first.explained, first.annotated

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return tuple(self.explained['targets'])

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes that were detected, by name."""
        return tuple(sorted({part.category for share in self._shares for part in share.classes}))

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets that there are: ``SETS``, or ``'all'`` alone without annotations."""
        return SETS if self.annotated else ('all',)

    def stack(self, category: str, which: str = 'all') -> Stack:
        """Returns the detections of a class.

        Args:
            category: The class.
            which: One of ``sets``.

        Raises:
            InputError: If there is no such set.
        """
        if which not in self.sets:
            raise InputError(
                f'Expected one of the sets {self.sets}, received {which!r}: true and false '
                'positives need a data set whose annotations are loaded.'
            )
        parts = [
            (share.frame, part)
            for share in self._shares
            for part in share.classes
            if part.category == category
        ]
        stack = _stacked(category, self.protocol.grid_of(category), parts, len(self.targets))
        if which == 'all':
            return stack
        return stack.only(stack.matched if which == 'tp' else ~stack.matched)

    def average(self, category: str, which: str = 'all') -> AverageMap:
        """Returns the average map of a set of a class."""
        return average(self.stack(category, which), self.targets, self.protocol.weight)


def _stacked(
    category: str, grid: Grid, parts: Sequence[tuple[str, ClassShare]], targets: int
) -> Stack:
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


def _check_same(first: FrameShare, share: FrameShare) -> None:
    if share.annotated != first.annotated:
        with_, without = sorted((first, share), key=lambda s: s.annotated, reverse=True)
        raise InputError(
            f'Expected annotations in all frames or in none, received {with_.frame!r} with and '
            f'{without.frame!r} without them.'
        )
    differing = sorted(
        key
        for key in {*first.explained, *share.explained}
        if first.explained.get(key) != share.explained.get(key)
    )
    if differing:
        difference = {k: (first.explained.get(k), share.explained.get(k)) for k in differing}
        raise InputError(
            f'Frames {first.frame!r} and {share.frame!r} were explained in different ways, '
            f'{difference}: expected one method, detector and selection. Average each by itself.'
        )
