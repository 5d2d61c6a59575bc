"""A frame as the adapters hand it on, and what is asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from .first_pass import FirstPass


@dataclass(frozen=True)
class Frame:
    """One frame of a batch, copied before the host's own pass.

    Attributes:
        frame_id: Names it.
        points: (N, P) its points, x, y, z first.
        inputs: The detector's inputs as a batch of one.
        source: Its point file, where known.
        first: The frame in the host's own pass, for each layer, where that is enough to explain it.
        repeat: Whether a sampler added it to give every process equally many frames.
    """

    frame_id: str
    points: Tensor
    inputs: dict
    source: str | None = None
    first: tuple[FirstPass, ...] | None = None
    repeat: bool = False

    @property
    def unsourced(self) -> bool:
        """Whether nothing but its points tells the frame from another one of its name."""
        return self.source is None and not self.repeat

    def check(self) -> None:
        """Refuses points that cannot be explained, and on which the host may crash.

        Raises:
            InputError: If there are none, or some are not finite; the message names the frame.
        """
        check_points(self.points, self.frame_id)


def check_points(points: Tensor, frame_id: str) -> None:
    """Refuses a cloud that cannot be explained.

    Raises:
        InputError: If it is empty, or has coordinates that are not finite.
    """
    if points.dim() != 2 or points.shape[1] < 3 or len(points) == 0:
        raise InputError(
            f'Frame {frame_id!r} has points of shape {tuple(points.shape)}: expected (N, >= 3) '
            'with N > 0. Is the point-cloud range right, or the file empty?'
        )
    finite = torch.isfinite(points).all(1)
    if not finite.all():
        raise InputError(
            f'Frame {frame_id!r} has {int((~finite).sum())} points that are not finite: expected '
            'none. Remove them in the pipeline, for example with PointsRangeFilter.'
        )


def digest_of(arrays: Mapping[str, Any]) -> str:
    """Returns a digest of named arrays, tensors and lists of numbers, whatever their order.

    Args:
        arrays: By name; on any device.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(arrays.items()):
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy()
        array = np.ascontiguousarray(value)
        digest.update(f'{name} {array.shape} {array.dtype}'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
