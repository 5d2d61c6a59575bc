"""The decomposition of one frame: what is written to disk and handed to pictures and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import InputError, UnknownNameError
from .components import Components


@dataclass(frozen=True)
class BevArea:
    """The part of the ground that BEV maps (..., Z, X) cover, in the reference frame.

    Row 0 is the most negative z (the rear), column 0 the most negative x (the left); x right and
    z forward, metres.

    Attributes:
        x: Left and right edge of the map.
        z: Rear and front edge of the map.
    """

    x: tuple[float, float]
    z: tuple[float, float]

    def __post_init__(self) -> None:
        if not (self.x[0] < self.x[1] and self.z[0] < self.z[1]):
            raise InputError(f'Expected edges in order, received x={self.x}, z={self.z}.')

    @classmethod
    def of_grid(cls, grid: Mapping[str, Any]) -> BevArea:
        """Takes the edges from ``dict(x=(low, high, cells), z=(low, high, cells))``."""
        return cls(tuple(map(float, grid['x'][:2])), tuple(map(float, grid['z'][:2])))


@dataclass
class FrameDecomposition:
    """One frame's modality decomposition.

    Tensors have no batch dimension. BEV maps are (..., Z, X), see ``BevArea``.

    Attributes:
        frame_id: Names the frame; also the file's stem.
        outputs: The decomposition of each output, (C, ...) values and (M + 1, C, ...) parts.
        captured: The decomposition of each captured layer, if it is kept whole.
        shares: For each captured layer, in the order in which they ran, the (M + 1,) shares of
            the components (``shares.shares``).
        energies: For each captured layer with a map, (M + 1, Z, X) sums of |h_m| over channels.
        gradcams: Class activation maps (Z, X) by name: 'radar @ decoder.layer2'.
        references: Predictions (C, Z, X) of other models beside it (Appendix E.2 of LMD).
        points: The sensors' points (P, >= 3) x, y, z, metres, reference frame, by sensor.
        ground_truth: (Z, X) uint8, 1 where there is an object, where the data has it.
        ground_truth_valid: (Z, X) bool, where the annotation counts.
        area: What BEV maps cover, where known.
        settings: What decided the result, as plain data.
        versions: Names and versions of the software that made it.
        info: Plain numbers and text besides.
    """

    kind: ClassVar[str] = 'decomposition'

    frame_id: str
    outputs: dict[str, Components]
    captured: dict[str, Components] = field(default_factory=dict)
    shares: dict[str, Tensor] = field(default_factory=dict)
    energies: dict[str, Tensor] = field(default_factory=dict)
    gradcams: dict[str, Tensor] = field(default_factory=dict)
    references: dict[str, Tensor] = field(default_factory=dict)
    points: dict[str, Tensor] = field(default_factory=dict)
    ground_truth: Tensor | None = None
    ground_truth_valid: Tensor | None = None
    area: BevArea | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.outputs:
            raise InputError(f'Frame {self.frame_id!r} has no outputs: expected at least one.')
        for name, components in {**self.outputs, **self.captured}.items():
            if components.names != self.names:
                raise InputError(
                    f'Frame {self.frame_id!r}: expected the components {self.names} everywhere, '
                    f'received {components.names} for {name!r}.'
                )

    @property
    def output(self) -> Components:
        """The first output."""
        return next(iter(self.outputs.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The M modalities, then 'bias'."""
        return self.output.names

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names without the bias."""
        return self.output.modalities

    def find_output(self, name: str | None = None) -> Components:
        """Returns an output by name, the first one for None.

        Raises:
            UnknownNameError: If there is none of that name.
        """
        if name is None:
            return self.output
        if name not in self.outputs:
            raise UnknownNameError(
                f'Frame {self.frame_id!r} has no output {name!r}: expected one of '
                f'{list(self.outputs)}.'
            )
        return self.outputs[name]

    def to(self, device: torch.device | str) -> FrameDecomposition:
        """Returns a copy on ``device`` without graphs."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.detach().to(device)
            if isinstance(value, Components):
                parts = value.parts.detach().to(device)
                return replace(value, value=value.value.detach().to(device), parts=parts)
            return {k: moved(v) for k, v in value.items()} if isinstance(value, dict) else value

        plain = ('frame_id', 'area', 'settings', 'versions', 'info')
        changed = {k: moved(v) for k, v in vars(self).items() if k not in plain}
        return replace(self, **changed)


def frame_of(components: Components, index: int) -> Components:
    """Returns the decomposition of one frame of a batch, without the batch dimension."""
    return replace(
        components, value=components.value[index], parts=components.parts[:, index].contiguous()
    )
