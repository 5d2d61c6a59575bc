"""The decomposition of one tensor: what engine, metrics, pictures and result files exchange."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import InputError, UnknownNameError

#: Name of the last component, which belongs to no sensor.
BIAS = 'bias'


@dataclass(frozen=True)
class Components:
    """One activation and its parts, which sum to it (Eq. 22 of LMD).

    Attributes:
        value: (B, ...) the network's own activation, bit for bit.
        parts: (M + 1, B, ...) one component of each modality, then that of the bias.
        names: The M modalities, then 'bias'.
        residual: Largest max |sum h - A| / max(|A|, sum |h|) over all tensors up to this one, or
            None where it was not measured (production mode, in which the bias is the difference).

    Raises:
        InputError: If shapes and names do not fit each other.
    """

    value: Tensor
    parts: Tensor
    names: tuple[str, ...]
    residual: float | None = None

    def __post_init__(self) -> None:
        if self.parts.shape != (len(self.names), *self.value.shape):
            raise InputError(
                f'Expected parts of shape {(len(self.names), *self.value.shape)} for '
                f'{self.names}, received {tuple(self.parts.shape)}.'
            )
        if self.names[-1:] != (BIAS,):
            raise InputError(f'Expected {BIAS!r} as the last component, received {self.names}.')

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names without the bias."""
        return self.names[:-1]

    def __getitem__(self, name: str) -> Tensor:
        """Returns the (B, ...) component called ``name``.

        Raises:
            UnknownNameError: If there is none.
        """
        if name not in self.names:
            raise UnknownNameError(
                f'Unknown component {name!r}: expected one of {list(self.names)}.'
            )
        return self.parts[self.names.index(name)]

    def conservation_error(self) -> float:
        """Returns max |sum h - A| / max(|A|, sum |h|) of this tensor; 0 for an empty one."""
        if not self.value.numel():
            return 0.0
        parts, value = self.parts.double(), self.value.double()
        scale = torch.maximum(value.abs().max(), parts.abs().sum(0).max())
        return float((parts.sum(0) - value).abs().max() / scale.clamp_min(1e-300))
