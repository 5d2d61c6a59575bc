"""Where the cells of a layer lie: strides and centres through a chain of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """A regular grid of cells, in units of input voxels; all tuples are in the order z, y, x.

    Attributes:
        shape: Number of cells.
        stride: Distance between cell centres.
        center: Centre of the receptive field of cell 0; input voxel 0 has its centre at 0.5.
    """

    shape: tuple[int, ...]
    stride: tuple[float, ...]
    center: tuple[float, ...]

    @classmethod
    def of_input(cls, shape: Sequence[int]) -> Grid:
        """Returns the grid of the input voxels themselves."""
        n = len(shape)
        return cls(tuple(shape), (1.0,) * n, (0.5,) * n)

    def convolved(
        self,
        shape: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Grid:
        """Returns the grid after a convolution or pooling; ``shape`` is its output's.

        The receptive field of output cell o is centred on input cell
        o * stride - padding + dilation * (kernel - 1) / 2.
        """
        shift = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        return Grid(
            tuple(shape),
            tuple(j * s for j, s in zip(self.stride, stride, strict=True)),
            tuple(c + j * a for c, j, a in zip(self.center, self.stride, shift, strict=True)),
        )

    def deconvolved(
        self,
        shape: Sequence[int],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> Grid:
        """Returns the grid after a transposed convolution; ``shape`` is its output's.

        Input cell i spreads over output cells centred on
        i * stride - padding + dilation * (kernel - 1) / 2.
        """
        shift = [d * (k - 1) / 2 - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        fine = tuple(j / s for j, s in zip(self.stride, stride, strict=True))
        return Grid(
            tuple(shape),
            fine,
            tuple(c - j * a for c, j, a in zip(self.center, fine, shift, strict=True)),
        )

    def padded(self, shape: Sequence[int], before: Sequence[int]) -> Grid:
        """Returns the grid with cells added at its ends; ``shape`` is the result's.

        Args:
            shape: Number of cells afterwards.
            before: Cells added in front of the first.
        """
        center = tuple(c - j * b for c, j, b in zip(self.center, self.stride, before, strict=True))
        return Grid(tuple(shape), self.stride, center)

    def last(self, n: int) -> Grid:
        """Returns the grid's last ``n`` axes: a volume's bird's-eye view for n = 2."""
        return Grid(self.shape[-n:], self.stride[-n:], self.center[-n:])


class GridBook:
    """The grids that a pass went through, told apart by their shape.

    A layer that returns to the shape of an earlier one (upsampling, inverse convolution) is taken
    to return to its grid as well: that is where the network puts its cells when it adds or
    concatenates the two. The first layer of a shape therefore decides.

    Args:
        shape: (D, H, W) of the input voxels.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._grids: dict[tuple[int, ...], Grid] = {}
        self.add(Grid.of_input(shape))

    def add(self, grid: Grid) -> None:
        """Enters a grid, and a volume's bird's-eye view with it, unless the shape is known."""
        self._grids.setdefault(grid.shape, grid)
        if len(grid.shape) == 3:
            self._grids.setdefault(grid.shape[1:], grid.last(2))

    def get(self, shape: Sequence[int]) -> Grid | None:
        """Returns the grid of that shape, if the pass has been through it."""
        return self._grids.get(tuple(shape))
