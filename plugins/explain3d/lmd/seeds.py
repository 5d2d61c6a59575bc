"""Where a decomposition begins: which tensor of which module belongs to which modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..core.checks import (
    require_dict,
    require_known,
    require_number,
    require_text,
    require_whole,
)
from ..core.errors import InputError


@dataclass(frozen=True)
class Seed:
    """Declares one tensor to be the start of the decomposition.

    Either the whole tensor is one modality's, or its slices along ``dim`` are shared out, or its
    entries are by the value that they have in one channel: points by their time lag or the number
    of their sensor. From there on, and only from there on, tensors carry components.

    Attributes:
        module: Path of a module as in ``model.named_modules()``; '' is the model itself.
        at: 'input', before the module runs, or 'output', after it.
        path: Position of the tensor in the module's arguments or its output: indices and keys,
            joined by dots ('0', '1.camera', 'x'); keyword arguments by their names. '' is a
            module's output that is a tensor, or the first argument.
        modality: The modality that the whole tensor belongs to.
        split: Sizes of consecutive slices along ``dim``, for each modality in the order of the
            tensor: ``dict(camera=128, radar=16)``. They must add up to the tensor's size.
        dim: The dimension that ``split`` divides, or that ``channel`` counts; 1 is that of the
            channels, -1 of points and voxels.
        intervals: For each modality the (low, high) values of ``channel`` that are its own, high
            excluded, None for no bound: ``dict(keyframe=(None, 0.01), sweeps=(0.01, None))``. All
            channels of an entry go with it. An entry outside has to be zero throughout.
        channel: Number of that channel along ``dim``.

    Raises:
        InputError: If ``at`` is unknown, or not exactly one of ``modality``, ``split`` and
            ``intervals`` is there, or ``channel`` is missing for the last, or a value is of the
            wrong kind or out of its range.

    Examples:
        >>> camera = Seed('fuser', path='0.0', modality='camera')
        >>> both = Seed('fuser.conv', split=dict(camera=128, radar=16))
        >>> sweeps = dict(keyframe=(None, 0.01), sweeps=(0.01, None))
        >>> voxels = Seed('pts_voxel_encoder', dim=-1, channel=4, intervals=sweeps)
        >>> six = Seed('lift', at='output', dim=1, split=dict.fromkeys(('FRONT', 'BACK'), 1))
    """

    module: str
    at: str = 'input'
    path: str = ''
    modality: str | None = None
    split: Mapping[str, int] | None = None
    dim: int = 1
    intervals: Mapping[str, tuple[float | None, float | None]] | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        if self.at not in ('input', 'output'):
            raise InputError(f"Expected at='input' or 'output', received {self.at!r}.")
        given = [self.modality, self.split, self.intervals]
        if sum(each is not None for each in given) != 1:
            raise InputError(
                f'Expected either modality or split or intervals for the seed at {self.module!r}, '
                f'received modality={self.modality!r}, split={self.split!r}, '
                f'intervals={self.intervals!r}.'
            )
        if (self.intervals is None) != (self.channel is None):
            raise InputError(
                f'Expected intervals and their channel for the seed at {self.module!r}, received '
                f'intervals={self.intervals!r}, channel={self.channel!r}.'
            )

        self._check_values()

    def _check_values(self) -> None:
        where = f'of the seed at {self.module!r}'
        for name, value in (('module', self.module), ('path', self.path)):
            if not isinstance(value, str):
                raise InputError(
                    f'Expected {name} {where} to be text, received {value!r} '
                    f"({type(value).__name__}): '' is the model itself."
                )
        require_text('modality', self.modality, 'camera')
        require_whole('dim', self.dim, least=None)
        require_whole('channel', self.channel, least=0, optional=True)
        for name, size in require_dict('split', self.split, 'dict(camera=128, radar=16)').items():
            require_whole(f'split[{name!r}] {where}', size)
        example = 'dict(keyframe=(None, 0.01), sweeps=(0.01, None))'
        for name, ends in require_dict('intervals', self.intervals, example).items():
            _check_interval(f'intervals[{name!r}] {where}', ends)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that start here."""
        if self.modality is not None:
            return (self.modality,)
        return tuple(self.split or self.intervals or ())


def _check_interval(name: str, ends: tuple[float | None, float | None]) -> None:
    if not isinstance(ends, (tuple, list)) or len(ends) != 2:
        raise InputError(
            f'Expected {name} to be (low, high), None for no bound, received {ends!r}: write '
            '(None, 0.01), for example.'
        )
    low, high = (require_number(name, end, optional=True) for end in ends)
    if low is not None and high is not None and not low < high:
        raise InputError(
            f'Expected {name} to be (low, high) with low < high, received {ends!r}: exchange them.'
        )


def declared_seeds(
    seeds: str | Sequence[Seed | Mapping[str, Any]] | None,
) -> tuple[Seed, ...] | None:
    """Returns the seeds that a configuration lists; None if the model has to propose them.

    Args:
        seeds: Seeds or their dicts; a word or None for those that a model proposes.

    Raises:
        UnknownNameError: If a key of a seed is unknown.
        InputError: If a value of a seed is of the wrong kind or out of its range.
    """
    if seeds is None or isinstance(seeds, str):
        return None
    if not isinstance(seeds, Sequence) or not all(isinstance(s, (Seed, Mapping)) for s in seeds):
        raise InputError(
            f'Expected seeds to be None, a word or a list of seeds, received {seeds!r} '
            f"({type(seeds).__name__}): write [dict(module='fuser', path='0.0', "
            "modality='camera'), ...]."
        )
    for seed in seeds:
        if isinstance(seed, Mapping):
            require_known('a seed', seed, [f.name for f in fields(Seed)])
    return tuple(
        seed if isinstance(seed, Seed) else Seed(**{'module': None, **seed}) for seed in seeds
    )


def slices_of(seed: Seed, value: Tensor, where: str) -> list[Tensor]:
    """Returns the consecutive slices of ``value`` that ``seed.split`` shares out.

    Raises:
        InputError: If they do not add up; ``where`` is for the message.
    """
    sizes, dim = dict(seed.split), seed.dim
    if not -value.dim() <= dim < value.dim() or sum(sizes.values()) != value.shape[dim]:
        raise InputError(
            f'Expected slices along dimension {dim} that add up to the size of the tensor at '
            f'{where}, received {sizes} for shape {tuple(value.shape)}.'
        )
    return list(value.split(list(sizes.values()), dim))


def entries_by_value(seed: Seed, value: Tensor, where: str) -> list[Tensor]:
    """Returns for each modality of ``seed.intervals`` a tensor of its own entries, zeros elsewhere.

    Raises:
        InputError: If there is no such channel, or an entry is in no interval or in several.
    """
    dim = seed.dim
    if not -value.dim() <= dim < value.dim() or not 0 <= seed.channel < value.shape[dim]:
        raise InputError(
            f'Expected a channel {seed.channel} along dimension {dim} of the tensor at {where}, '
            f'received shape {tuple(value.shape)}.'
        )
    key = value.narrow(dim, seed.channel, 1)
    masks = [
        (key >= (-torch.inf if low is None else low))
        & (key < (torch.inf if high is None else high))
        for low, high in seed.intervals.values()
    ]
    claimed = torch.stack(masks).sum(0)
    wrong = (claimed != 1) & (value != 0).any(dim, keepdim=True)
    if wrong.any():
        raise InputError(
            f'Expected each entry of the tensor at {where} in one of the intervals '
            f'{dict(seed.intervals)} of channel {seed.channel}, received '
            f'{float(key[wrong][0]):.6g}, which is in {int(claimed[wrong][0])} of them.'
        )
    return [torch.where(mask, value, 0) for mask in masks]
