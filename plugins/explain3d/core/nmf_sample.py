"""A part of a layer's rows that stands for all of them in a factorisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Part of the mean norm that is added to each norm: a few long rows cannot be all that is taken.
EVEN = 0.25

#: Bits that weights keep: sums of as many rows as a frame has stay exact.
_BITS = 34


class RowSampler:
    """Takes rows evenly spaced along the sum of weights: the longer a row, the more often.

    A row's weight is its norm and a part of the mean norm; a row of zeros has none.

    A row is divided by the square root of how often it is expected, so that the squared error of
    concepts over the part is, on average, that over all rows. Long rows are what the error is made
    of: the part tells it better than every n-th row does. No random numbers.

    Args:
        features: (B, M, C) features.
        lengths: Rows of each frame; the others are padding and are not taken.
    """

    def __init__(self, features: Tensor, lengths: Sequence[int]):
        self._features = features
        self._last = torch.tensor(lengths, device=features.device)[:, None] - 1
        norms = torch.linalg.vector_norm(features, dim=-1).double()
        count = (norms > 0).sum(-1, keepdim=True)
        mean = norms.sum(-1, keepdim=True) / count.clamp(min=1)
        self._weights = norms + EVEN * mean * (norms > 0)
        self._ends = _running_sums(self._weights)

    def at(self, places: Tensor) -> Tensor:
        """Returns (B, N) row numbers at (B, N) places in [0, 1) along the sum of the weights."""
        rows = torch.searchsorted(self._ends, places * self._ends[:, -1:], right=True)
        return torch.minimum(rows, self._last)

    def part(self, sizes: Sequence[int]) -> Tensor:
        """Returns (B, N, C) rows, scaled: ``sizes[b]`` of frame b and zeros after them."""
        device = self._features.device
        size = torch.tensor(sizes, device=device, dtype=torch.float64)[:, None]
        places = (torch.arange(max(sizes), device=device) + 0.5) / size
        rows = self.at(places.clamp(max=1))
        expected = self._weights.gather(1, rows) * size / self._ends[:, -1:]
        scale = torch.where(places < 1, expected.rsqrt(), 0).nan_to_num_(0, 0, 0)
        return self.take(rows) * scale[..., None].to(self._features.dtype)

    def take(self, rows: Tensor) -> Tensor:
        """Returns the (B, N, C) rows of (B, N) numbers, as they are."""
        return self._features.gather(1, rows[..., None].expand(-1, -1, self._features.shape[2]))


def _running_sums(weights: Tensor) -> Tensor:
    """Returns (B, M) running sums along the rows, exact and so the same on every device.

    A GPU adds floats in an order of chance. Weights are rounded to ``_BITS`` below the largest.
    """
    largest = weights.amax(-1, keepdim=True) if weights.shape[-1] else weights.new_zeros(1, 1)
    shift = _BITS - torch.frexp(largest).exponent
    return torch.ldexp(torch.ldexp(weights, shift).round_().long().cumsum(-1).double(), -shift)
