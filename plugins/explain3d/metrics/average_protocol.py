"""How maps of many objects are averaged: every average map carries this along."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral
from typing import Any

from ..core.checks import require_dict, require_known, require_number, require_whole
from ..core.errors import InputError, UnknownNameError
from ..core.matching import DEFAULT_THRESHOLDS, overlap_function, resolve_thresholds

#: Cells along length, width and height of a class's box: about a decimetre each on KITTI's boxes.
CELLS: Mapping[str, tuple[int, int, int]] = {
    'car': (32, 16, 16),
    'vehicle': (32, 16, 16),
    'pedestrian': (10, 10, 20),
    'cyclist': (20, 10, 20),
    'other': (24, 12, 12),
}
WEIGHTS = ('points', 'objects')
SCALES = ('frame', 'none')


@dataclass(frozen=True)
class Grid:
    """The cells that a class's box and its margin are divided into.

    A box becomes the cube [-1, 1]^3 whatever its size: x along its length (1 is the front), y along
    its width (1 is the left), z along its height (1 is the top).

    Attributes:
        cells: Cells across the box along length, width and height.
        pad: Cells beyond each face.
    """

    cells: tuple[int, int, int]
    pad: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells of the whole region along length, width and height."""
        return tuple(c + 2 * p for c, p in zip(self.cells, self.pad, strict=True))

    @property
    def size(self) -> int:
        """Number of cells of the region."""
        return math.prod(self.shape)

    @property
    def reach(self) -> tuple[float, float, float]:
        """Where the region ends along length, width and height; the box ends at 1."""
        return tuple(1 + 2 * p / c for c, p in zip(self.cells, self.pad, strict=True))

    def coarser(self, factor: int) -> Grid:
        """Returns a grid of as large a region whose cells are up to so many times as large."""
        cells = tuple(math.ceil(c / factor) for c in self.cells)
        pad = tuple(
            math.ceil(p * new / old)
            for p, new, old in zip(self.pad, cells, self.cells, strict=True)
        )
        return Grid(cells, pad)


@dataclass(frozen=True)
class AverageProtocol:
    """The choices that sections 4.1 and 4.3 of FFAM leave open, and those they make.

    Attributes:
        cells: Cells along length, width and height of the box: for each class by name (letter case
            ignored, ``'other'`` for the rest), or one triple for all.
        margin: How far the region reaches beyond each face, as a part of half the box's size.
        weight: ``'points'``: a cell's value is the mean over all points in it, as the paper has
            it, so that near objects count for more. ``'objects'``: the mean over objects of their
            means in the cell, so that each object counts alike.
        scale: ``'frame'``: each map is scaled to [0, 1] over its frame first, as for the other
            metrics; ``'none'``: it is taken as it is.
        iou_thr: IoU that a detection has to exceed with an annotated object of its class to be a
            true positive, by class, or one for all; None: car and vehicle 0.7, pedestrian and
            cyclist 0.5.
        iou: The overlap of that match, '3d' or 'bev'.
        coarse: Two maps are compared in cells so many times as long, wide and high as those that
            are drawn: few false positives have points in the same small cell.
        min_objects: Detections with points in such a cell that it needs in both of two maps.
        draws: Resamples of the intervals.
        seed: Of the draws.

    Raises:
        InputError: If a value is out of its range.
        UnknownNameError: If ``iou`` is unknown.
    """

    cells: Mapping[str, Sequence[int]] | Sequence[int] = field(default_factory=lambda: CELLS)
    margin: float = 0.5
    weight: str = 'points'
    scale: str = 'frame'
    iou_thr: Mapping[str, float] | float | None = None
    iou: str = '3d'
    coarse: int = 4
    min_objects: int = 2
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        cells = self.cells
        table = cells if isinstance(cells, Mapping) else {'other': cells}
        if not table or not all(_are_cells(c) for c in table.values()):
            raise InputError(
                f'Expected cells as three numbers of at least 1 (length, width, height), for all '
                f'or by class, received {cells}.'
            )
        table = {str(name).lower(): tuple(map(int, c)) for name, c in sorted(table.items())}
        require_number('margin', self.margin)
        for name in ('coarse', 'min_objects', 'draws'):
            require_whole(name, getattr(self, name), least=None)
        require_whole('seed', self.seed, least=0)
        for name, known in (('weight', WEIGHTS), ('scale', SCALES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f'Expected {name} to be one of {known}, received {getattr(self, name)!r}.'
                )
        if not 0 <= self.margin <= 4 or min(self.coarse, self.min_objects, self.draws) < 1:
            raise InputError(
                f'Expected 0 <= margin <= 4, and coarse, min_objects and draws of at least 1, '
                f'received {self.margin}, {self.coarse}, {self.min_objects} and {self.draws}.'
            )
        limits = DEFAULT_THRESHOLDS if self.iou_thr is None else self.iou_thr
        if isinstance(limits, Mapping):
            limits = {name.lower(): float(value) for name, value in sorted(limits.items())}
        overlap_function(self.iou)
        resolve_thresholds([], limits)
        object.__setattr__(self, 'cells', table)
        object.__setattr__(self, 'iou_thr', limits)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> AverageProtocol:
        """Returns the protocol that a configuration says.

        Raises:
            UnknownNameError: If a key is unknown.
            InputError: If a value is out of its range.
        """
        values = require_dict('protocol', values, 'dict(margin=0.5)')
        require_known('protocol', values, [f.name for f in fields(cls)])
        return cls(**values)

    def grid_of(self, category: str) -> Grid:
        """Returns the grid of a class.

        Raises:
            UnknownNameError: If it has none, and there is none for ``'other'``.
        """
        cells = self.cells.get(category.lower(), self.cells.get('other'))
        if cells is None:
            raise UnknownNameError(
                f'Expected cells for the class {category!r}, received those of '
                f'{sorted(self.cells)}: add it, or "other" for the rest.'
            )
        # Rounded first: 0.1 * 10 / 2 is a little more than a half.
        pad = tuple(math.ceil(round(self.margin * c / 2, 6)) for c in cells)
        return Grid(cells, pad)

    def as_dict(self) -> dict[str, Any]:
        """Returns the protocol as plain data."""
        return {**asdict(self), 'cells': {name: list(c) for name, c in self.cells.items()}}

    def text(self) -> str:
        """Returns one line to print beside figures."""
        iou_thr = self.iou_thr
        if isinstance(iou_thr, Mapping):
            iou_thr = ', '.join(f'{name} {value:g}' for name, value in iou_thr.items())
        maps = 'min-max over the frame' if self.scale == 'frame' else 'maps as they are'
        mean = 'all points in the cell' if self.weight == 'points' else "objects' means in the cell"
        return (
            f'predicted boxes scaled to one size and aligned, with a margin of {self.margin:g} '
            f'half sizes; {maps}; a cell has the mean over {mean}; true positive: {self.iou} IoU > '
            f'({iou_thr}) with an object of the class, one to one, greedy by score; maps compared '
            f'in cells {self.coarse} times as large where both have {self.min_objects} detections; '
            f'{self.draws} draws of frames, seed {self.seed}'
        )


def _are_cells(cells: Any) -> bool:
    """Whether these are three whole numbers of at least 1."""
    listed = isinstance(cells, Sequence) and not isinstance(cells, str) and len(cells) == 3
    return listed and all(
        isinstance(c, Integral) and not isinstance(c, bool) and c >= 1 for c in cells
    )
