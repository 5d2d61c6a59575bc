"""Does a decomposition keep the sensors apart? Eq. 14 and 15 of LMD, and its four figures.

One modality X of a sample is replaced by that of another sample; the figure X_p/Y says how the
component of modality Y changes (R_p/C: radar replaced, camera's component). Separation means that
Y = X changes and every other Y stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import InputError

#: The paper's pairing: partner m of sample k is (k + 500 m) mod 6019, m = 1 ... 12.
PAPER_COUNT, PAPER_STRIDE, PAPER_SHIFTS = 6019, 500, 12


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each pair of maps (Eq. 14 of LMD), in float64.

    Args:
        a: (B, ...) maps; all dimensions but the first are the map's.
        b: (B, ...) of the same shape.

    Returns:
        (B,) float64 in [-1, 1] to rounding; NaN where one of the two maps is constant, for which
        a correlation is not defined.

    Raises:
        InputError: If the shapes differ, the maps are empty, or a value is not finite.
    """
    a, b = _pair(a, b)
    constant = (a.amax(1) == a.amin(1)) | (b.amax(1) == b.amin(1))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    # Unit vectors first: the product of two sums of squares would overflow or vanish earlier.
    unit_a, unit_b = (v / v.norm(dim=1, keepdim=True) for v in (a, b))
    return (unit_a * unit_b).sum(1).masked_fill(constant, torch.nan)


def mean_squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean of the squared difference of each pair of maps (Eq. 15 of LMD), in float64.

    Args:
        a: (B, ...) maps.
        b: (B, ...) of the same shape.

    Returns:
        (B,) float64, in the square of the maps' unit.

    Raises:
        InputError: As ``pearson``.
    """
    a, b = _pair(a, b)
    return (a - b).square().mean(1)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.dim() < 2 or not a[:1].numel():
        raise InputError(
            f'Expected two sets of maps of the same shape (B, ...), received {tuple(a.shape)} and '
            f'{tuple(b.shape)}.'
        )
    a, b = a.detach().double().flatten(1), b.detach().double().flatten(1)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise InputError(
            'Expected finite maps, received NaN or infinite values: find out which step of the '
            'model or of the rules makes them.'
        )
    return a, b


@dataclass(frozen=True)
class Pairing:
    """Which samples lend a modality to sample k: (k + stride m) mod count, m = 1 ... shifts.

    Attributes:
        count: N, number of samples.
        stride: Distance of a sample from its first partner.
        shifts: How many partners each sample has.
    """

    count: int
    stride: int
    shifts: int

    @classmethod
    def of(cls, count: int, stride: int | None = None, shifts: int = PAPER_SHIFTS) -> Pairing:
        """The paper's pairing, scaled to ``count`` samples.

        The default stride is floor(500 count / 6019), at least 1: the paper's at its 6019 samples,
        and always the same share of the set. There are as many partners as fit before the circle
        closes, stride * m < count, up to ``shifts``: no sample is its own partner, and no two of
        its partners are the same.

        Raises:
            InputError: If there is no pair: fewer than two samples, or a stride that reaches
                round the set.
        """
        if stride is None:
            stride = max(PAPER_STRIDE * count // PAPER_COUNT, 1)
        fitting = min(shifts, (count - 1) // stride) if stride > 0 else 0
        if fitting < 1:
            raise InputError(
                f'Expected at least two samples and 1 <= stride < {count}, shifts >= 1, received '
                f'{count} samples, stride {stride}, shifts {shifts}: no sample has a partner.'
            )
        return cls(count, stride, fitting)

    def partners(self, index: int) -> list[int]:
        """Returns the partners of sample ``index``, m = 1 first."""
        return [(index + self.stride * m) % self.count for m in range(1, self.shifts + 1)]


@dataclass(frozen=True)
class Figure:
    """One column of the separation table.

    Attributes:
        replaced: X, the modality that comes from another sample.
        component: Y, the component whose change is measured: a modality, 'bias', or 'output', the
            prediction itself.
        metric: 'pcc' or 'mse'.
    """

    replaced: str
    component: str
    metric: str

    @property
    def name(self) -> str:
        """``radar_p/camera pcc``: what the paper writes as R_p/C."""
        return f'{self.replaced}_p/{self.component} {self.metric}'

    @property
    def higher_is_better(self) -> bool | None:
        """Direction by Appendix D.2; None for what has none (bias, output)."""
        if self.component in ('bias', 'output'):
            return None
        return (self.replaced == self.component) == (self.metric == 'mse')


METRICS = {'pcc': pearson, 'mse': mean_squared_error}


def figures(modalities: Sequence[str], components: Sequence[str] | None = None) -> list[Figure]:
    """Returns all X_p/Y of ``modalities`` X and ``components`` Y (default: the modalities)."""
    components = modalities if components is None else components
    return [Figure(x, y, m) for m in METRICS for x in modalities for y in components]
