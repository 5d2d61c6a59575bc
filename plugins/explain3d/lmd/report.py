"""Conservation and shares at every tensor, as the check mode measures them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Rows


@dataclass(frozen=True)
class LayerReport:
    """One decomposed tensor.

    Attributes:
        module: Path of the module in which it came to be.
        operation: What made it.
        shape: Its shape.
        residual: max |sum h - A| / max(|A|, sum |h|) of this tensor alone.
        shares: For each modality and the bias, sum |h_m| / sum over all components of sum |h|.
    """

    module: str
    operation: str
    shape: tuple[int, ...]
    residual: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """The same before it is read from the device: ``residual`` 0-d, ``masses`` (M + 1,)."""

    module: str
    operation: str
    shape: tuple[int, ...]
    residual: Tensor
    masses: Tensor

    def read(self, names: tuple[str, ...]) -> LayerReport:
        """Returns the report, with numbers."""
        shares = self.masses / self.masses.sum().clamp_min(torch.finfo(torch.float64).tiny)
        shares = dict(zip(names, shares.tolist(), strict=True))
        return LayerReport(self.module, self.operation, self.shape, float(self.residual), shares)


def measure(value: Tensor, pieces: list[Rows], dim: int, size: int) -> tuple[Tensor, Tensor]:
    """Measures one tensor.

    Args:
        value: (...) the activation A; a frozen run brings its own value as component M + 1.
        pieces: Its components, in slices along ``dim`` if there are several.
        dim: The dimension of the slices.
        size: The number M of modalities.

    Returns:
        0-d float64 max |sum h - A| / max(|A|, sum |h|), 0 for an empty tensor, and (M + 1,)
        float64 sums of |h|.
    """
    error = magnitude = torch.zeros((), dtype=torch.float64, device=value.device)
    masses = torch.zeros(size + 1, dtype=torch.float64, device=value.device)
    start = 0
    for piece in pieces:
        length = piece.stack.shape[1 + dim] if len(pieces) > 1 else 0
        part = value.narrow(dim, start, length) if len(pieces) > 1 else value
        start += length
        if part.numel() == 0:
            continue
        if size + 1 in piece.ids:
            part = piece.select((size + 1,)).stack[0]
        rows = piece.without((size + 1,))
        absolute = rows.stack.abs()
        total, infinite = rows.stack.sum(0, dtype=torch.float64), part.isinf()
        # An infinite value on purpose, as of masked logits, is infinitely large in the bias too.
        differ = torch.where(infinite & (total == part), 0, total - part)
        error = torch.maximum(error, differ.abs().max())
        here = torch.maximum(absolute.sum(0, dtype=torch.float64), part.abs().double())
        here = here.masked_fill(infinite, 0).max()
        magnitude = torch.maximum(magnitude, here)
        for row, number in enumerate(rows.ids):
            masses[number] += absolute[row].sum(dtype=torch.float64)
    return error / magnitude.clamp_min(torch.finfo(torch.float64).tiny), masses
