"""Average saliency maps of a class (4.1 and Figs. 4 and 7 of FFAM), from the shares of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import InputError
from .average_protocol import AverageProtocol, Grid
from .average_shares import FrameShare
from .average_stack import Stack, stacked

#: Sets of detections: true positives, false positives, and both.
SETS = ('tp', 'fp', 'all')


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
        columns: Three tensors like (Y, Z), (X, Z) and (X, Y): detections that have points in a
            column of cells along the length, width and height.
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
    columns: tuple[Tensor, Tensor, Tensor]
    size: Tensor
    count: int
    weight: str = 'points'

    def of(self, target: str) -> Tensor:
        """(X, Y, Z) the map of one target."""
        return self.saliency[self.targets.index(target)]

    def seen_along(self, target: str, axis: int) -> Tensor:
        """Returns the mean of a map along an axis, as all that fell into a column of cells.

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
        columns=tuple(_detections_along(stack, axis) for axis in range(3)),
        size=stack.mean_size,
        count=len(stack),
        weight=weight,
    )


def _detections_along(stack: Stack, axis: int) -> Tensor:
    """Detections that have points in each column of cells along an axis."""
    shape = [*stack.grid.shape]
    shape[axis] = 1
    sizes = torch.tensor(shape)
    number = torch.arange(sizes.prod()).view(shape).expand(stack.grid.shape).flatten()
    columns = int(sizes.prod())
    key = (stack.owner * columns + number[stack.cell]).unique()
    return torch.bincount(key % columns, minlength=columns).view(shape).squeeze(axis)


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
        objects: Number of annotated objects.

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
        self.objects = sum(share.objects for share in self._shares)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets."""
        return tuple(self.explained['target_names'])

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
        stack = stacked(category, self.protocol.grid_of(category), parts, len(self.targets))
        if which == 'all':
            return stack
        return stack.only(stack.matched if which == 'tp' else ~stack.matched)

    def average(self, category: str, which: str = 'all') -> AverageMap:
        """Returns the average map of a set of a class."""
        return average(self.stack(category, which), self.targets, self.protocol.weight)


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
