"""Which part of a frame a question about regions needs: exact, by the receptive fields.

The network is taken in two parts: the encoder, from points to the bird's-eye-view map, and the
dense part, from there to the head. Where points of a region change,

- the map changes in its *patch*, the cells that look at a changed voxel;
- for the patch the encoder needs the *crop*, the voxels at which the patch looks;
- for the region's candidates the dense part needs the *window*, the cells at which they look, and
  its last part, the *tail*, has a window of its own.

Outside of the patch the map is the unperturbed frame's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...core.black_box import Region
from ...core.receptive_field import Grid

#: A range of cells or voxels, the last one excluded.
Span = tuple[int, int]
#: Of y and x.
Spans = tuple[Span, Span]


@dataclass(frozen=True)
class View:
    """How a detector looks at its input; in input voxels, all pairs y, x.

    Attributes:
        range_min: Lower corner of the grid, x and y in metres.
        voxel_size: Of an input voxel, x and y in metres.
        encoder: How far the map looks.
        dense: How far the head's outputs look into the map.
        bev: Grid of the map.
        out: Grid of the head's outputs.
        alignment: Cells of the map at whose multiples a window may begin.
        tail: How far the head's outputs look into the inputs of the dense part's last part; as
            ``dense`` where there is no such part.
    """

    range_min: tuple[float, float]
    voxel_size: tuple[float, float]
    encoder: tuple[float, float]
    dense: tuple[float, float]
    bev: Grid
    out: Grid
    alignment: int
    tail: tuple[float, float]

    def metres(self) -> tuple[float, float]:
        """Returns how far from an output cell, x and y, points can matter; a cell is added.

        An anchor may stand anywhere in its cell.
        """
        voxels = [
            e + d + j for e, d, j in zip(self.encoder, self.dense, self.out.stride, strict=True)
        ]
        return voxels[1] * self.voxel_size[0], voxels[0] * self.voxel_size[1]

    def window_of(self, regions: Sequence[Region], rows: Span, columns: Span) -> Window:
        """Returns what candidates in these rows and columns need when the regions change."""
        patch, crop, window, tail, out, moved = [], [], [], [], [], []
        for axis, span in enumerate((rows, columns)):
            changed = self._changed(regions, axis)
            moved.append(changed)
            part = self._patch(changed, axis)
            wide = self._window(span, axis, self.dense)
            last = self._window(span, axis, self.tail)
            part = (max(part[0], wide[0]), max(min(part[1], wide[1]), max(part[0], wide[0])))
            patch.append(part)
            window.append(wide)
            tail.append(last)
            crop.append(self._crop(part, axis))
            scale = self.bev.stride[axis] / self.out.stride[axis]
            out.append((round(last[0] * scale), round(last[1] * scale)))
        return Window(*map(tuple, (patch, crop, window, tail, out, moved)))

    def window_around(self, regions: Sequence[Region], rows: Span, columns: Span) -> Window:
        """Returns what these candidates need of clouds that differ anywhere."""
        found = self.window_of(regions, rows, columns)
        crop = tuple(self._crop(part, axis) for axis, part in enumerate(found.window))
        return replace(found, patch=found.window, crop=crop, changed=None)

    def _changed(self, regions: Sequence[Region], axis: int) -> Span:
        """Voxels in which points change, a voxel wider than computed: hosts round otherwise."""
        low, size = self.range_min[1 - axis], self.voxel_size[1 - axis]
        centers = [(r.y, r.x)[axis] for r in regions]
        first = min(c - r.radius for c, r in zip(centers, regions, strict=True))
        last = max(c + r.radius for c, r in zip(centers, regions, strict=True))
        return math.floor((first - low) / size) - 1, math.floor((last - low) / size) + 2

    def _patch(self, changed: Span, axis: int) -> Span:
        reach, n = self.encoder[axis], self.bev.shape[axis]
        stride, center = self.bev.stride[axis], self.bev.center[axis]
        first = math.ceil((changed[0] + 0.5 - reach - center) / stride)
        last = math.floor((changed[1] - 0.5 + reach - center) / stride)
        return _clipped(first, last + 1, n)

    def _crop(self, patch: Span, axis: int) -> Span:
        reach, stride, center = self.encoder[axis], self.bev.stride[axis], self.bev.center[axis]
        first = math.floor(center + stride * patch[0] - reach) - 1
        last = math.ceil(center + stride * (patch[1] - 1) + reach) + 1
        return first, last + 1

    def _window(self, span: Span, axis: int, reach: tuple[float, float]) -> Span:
        ends = [self.out.center[axis] + self.out.stride[axis] * i for i in (span[0], span[1] - 1)]
        stride, center, n = self.bev.stride[axis], self.bev.center[axis], self.bev.shape[axis]
        first = math.ceil((ends[0] - reach[axis] - center) / stride)
        last = math.floor((ends[1] + reach[axis] - center) / stride)
        first, last = _clipped(first, last + 1, n)
        first = first // self.alignment * self.alignment
        return first, min(-(-last // self.alignment) * self.alignment, n)


@dataclass(frozen=True)
class Window:
    """See the module's documentation.

    Attributes:
        patch: Cells of the map that change, inside the window.
        crop: Input voxels that the encoder needs.
        window: Cells of the map that the dense part needs.
        tail: Cells of the map that correspond to what the tail needs.
        out: The head's cells that the tail gives.
        changed: Input voxels in which points change; None where they may change anywhere.
    """

    patch: Spans
    crop: Spans
    window: Spans
    tail: Spans
    out: Spans
    changed: Spans | None

    def parts(self, view: View, remembered: bool = False) -> tuple[float, float]:
        """Returns the share of the whole grid that the dense part and the encoder get.

        Args:
            view: Whose window it is.
            remembered: Whether the encoder remembers the frame (``sparse_memory``).
        """
        size = [n * j for n, j in zip(view.bev.shape, view.bev.stride, strict=True)]
        spans = self.changed if remembered and self.changed is not None else self.crop
        sides = [min(b, s) - max(a, 0) for (a, b), s in zip(spans, size, strict=True)]
        return (
            _area(self.window) / math.prod(view.bev.shape),
            max(sides[0], 0) * max(sides[1], 0) / math.prod(size),
        )


def _area(spans: Spans) -> int:
    return math.prod(b - a for a, b in spans)


def _clipped(first: int, last: int, n: int) -> Span:
    first = min(max(first, 0), n)
    return first, max(min(last, n), first)
