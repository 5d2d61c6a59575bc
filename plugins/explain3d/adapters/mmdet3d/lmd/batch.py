"""The frames of a collated batch: their names, inputs, pictures and annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....core.errors import InputError
from ....lmd.frame import BevArea
from ...common.frame_names import FrameNames
from ...common.frames import digest_of
from ..frames import frame_id_of

#: Sensors whose points are kept for pictures: their key in ``inputs`` and their name.
POINT_INPUTS = {'radar': 'radar', 'points': 'lidar'}


@dataclass(frozen=True)
class BatchFrame:
    """One frame of a batch, before the model runs.

    Attributes:
        frame_id: Names it.
        inputs: Its entry of each of ``inputs``.
        sample: Its data sample.
        source: What it is, to tell two frames of one name apart; None where nothing but its
            inputs does.
        repeat: Whether a sampler added it to give every process equally many frames.
    """

    frame_id: str
    inputs: Mapping[str, Any]
    sample: Any
    source: str | None
    repeat: bool = False

    def digest(self) -> str:
        """A digest of all that the model gets: inputs and arrays of the meta information.

        The annotation is no part of it.
        """
        meta = {k: v for k, v in self.sample.metainfo.items() if _is_numeric(v)}
        return digest_of({**meta, **self.inputs})

    def identity(self) -> str:
        """What tells the frame from others of its name."""
        return self.source or f'inputs of digest {self.digest()}'

    def images(self) -> dict[str, np.ndarray]:
        """Returns the cameras' pictures (H, W, 3), RGB in [0, 1], as the pipeline made them."""
        images = self.inputs.get('img')
        if not isinstance(images, Tensor) or images.dim() not in (3, 4):
            return {}
        images = images[None] if images.dim() == 3 else images
        names = self.sample.metainfo.get('cam_names') or range(len(images))
        pictures = images.detach().float().cpu().numpy().transpose(0, 2, 3, 1)[..., ::-1]
        return {
            str(name): np.clip(picture / 255, 0, 1)
            for name, picture in zip(names, pictures, strict=True)
        }

    def points(self) -> dict[str, Tensor]:
        """Returns the sensors' points (P, 3), by sensor."""
        return {
            name: torch.as_tensor(self.inputs[key])[:, :3].float()
            for key, name in POINT_INPUTS.items()
            if isinstance(self.inputs.get(key), Tensor) and self.inputs[key].dim() == 2
        }

    def truth(self) -> tuple[Tensor | None, Tensor | None]:
        """Returns the annotation (Z, X) and where it counts, or None."""
        field = self.sample.get('gt_bev_seg')
        if field is None:
            return None, None
        valid = field.get('valid')
        return field.data[0].to(torch.uint8), None if valid is None else valid[0].bool()

    def area(self, model: Any) -> BevArea | None:
        """Returns what BEV maps cover, by the meta information or the model's grid."""
        grid = self.sample.metainfo.get('bev_grid')
        if grid is None and hasattr(model, 'grid'):
            grid = model.grid if isinstance(model.grid, Mapping) else vars(model.grid)
        return None if grid is None or not {'x', 'z'} <= set(grid) else BevArea.of_grid(grid)


def frames_of(
    data: Mapping[str, Any], key: str | None = None, names: FrameNames | None = None
) -> list[BatchFrame]:
    """Takes a collated batch apart.

    Args:
        data: ``inputs``, whose entries are lists or tensors of B, and ``data_samples``.
        key: Entry of the meta information that names a frame.
        names: Makes names unique in a run; None: they are as they are, numbers those in the batch.

    Raises:
        InputError: If it is no collated batch.
    """
    if not isinstance(data, Mapping) or not {'inputs', 'data_samples'} <= set(data):
        raise InputError(
            'Expected a collated batch, a dict with "inputs" and "data_samples", received '
            f'{sorted(data) if isinstance(data, Mapping) else type(data).__name__}.'
        )
    samples = data['data_samples']
    numbers = range(len(samples)) if names is None else names.numbers(len(samples))
    frames = []
    for i, (sample, number) in enumerate(zip(samples, numbers, strict=True)):
        inputs = {
            name: value[i]
            for name, value in data['inputs'].items()
            if isinstance(value, (list, tuple, Tensor)) and len(value) == len(samples)
        }
        name = frame_id_of(sample, number, key, names)
        repeat = names is not None and names.is_repeat(number)
        frames.append(BatchFrame(name, inputs, sample, _source(sample), repeat))
    return frames


def _source(sample: Any) -> str | None:
    """What tells a frame from all others; a sample's index is its data set's alone."""
    meta = sample.metainfo
    return next((str(meta[k]) for k in ('lidar_path', 'token', 'img_path') if meta.get(k)), None)


def copied(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a batch whose samples can be predicted on once more without touching ``data``."""
    inputs = {k: list(v) if isinstance(v, (list, tuple)) else v for k, v in data['inputs'].items()}
    return {**data, 'inputs': inputs, 'data_samples': [s.clone() for s in data['data_samples']]}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, (np.ndarray, Tensor)):
        return True
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(v, (int, float, np.ndarray)) for v in value)
    )
