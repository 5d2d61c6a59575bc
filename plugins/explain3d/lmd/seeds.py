"""Where a decomposition begins: which tensor of which module belongs to which modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.errors import InputError


@dataclass(frozen=True)
class Seed:
    """Declares one tensor to be the start of the decomposition.

    Either the whole tensor is one modality's, or its slices along ``dim`` are shared out. From
    there on, and only from there on, tensors carry components.

    Attributes:
        module: Path of a module as in ``model.named_modules()``; '' is the model itself.
        at: 'input', before the module runs, or 'output', after it.
        path: Position of the tensor in the module's arguments or its output: indices and keys,
            joined by dots ('0', '1.camera', 'x'); keyword arguments by their names. '' is a
            module's output that is a tensor, or the first argument.
        modality: The modality that the whole tensor belongs to.
        split: Sizes of consecutive slices along ``dim``, for each modality in the order of the
            tensor: ``dict(camera=128, radar=16)``. They must add up to the tensor's size.
        dim: The dimension that ``split`` divides; 1 is that of the channels.

    Raises:
        InputError: If ``at`` is unknown, or not exactly one of ``modality`` and ``split`` is there.

    Examples:
        >>> camera = Seed('fuser', path='0.0', modality='camera')
        >>> both = Seed('fuser.conv', split=dict(camera=128, radar=16))
        >>> six = Seed('lift', at='output', dim=1, split=dict.fromkeys(('FRONT', 'BACK'), 1))
    """

    module: str
    at: str = 'input'
    path: str = ''
    modality: str | None = None
    split: Mapping[str, int] | None = None
    dim: int = 1

    def __post_init__(self) -> None:
        if self.at not in ('input', 'output'):
            raise InputError(f"Expected at='input' or 'output', received {self.at!r}.")
        if (self.modality is None) == (self.split is None):
            raise InputError(
                f'Expected either modality or split for the seed at {self.module!r}, received '
                f'modality={self.modality!r}, split={self.split!r}.'
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that start here."""
        return (self.modality,) if self.modality is not None else tuple(self.split or ())
