"""What a camera model needs out of a batch, or a clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from ...core.errors import InputError


def required(inputs: Mapping[str, object], key: str, sensor: str) -> object:
    """Returns ``inputs[key]``.

    Raises:
        InputError: If it is missing; the message names the sensor.
    """
    if inputs.get(key) is None:
        raise InputError(
            f'Expected inputs[{key!r}] of the sensor {sensor!r}, received {sorted(inputs)}: load '
            'the sensor, or use a configuration of the model without it.'
        )
    return inputs[key]


def calibration(
    samples: Sequence[Det3DDataSample], name: str, cameras: int, like: Tensor
) -> Tensor:
    """Returns (B, S, 4, 4) matrices ``name`` out of the metainfo, at least in float32.

    Args:
        samples: B data samples.
        name: Entry of their metainfo.
        cameras: S.
        like: A tensor of the device and precision wanted.

    Raises:
        InputError: If they are missing, or not of S cameras.
    """
    try:
        matrices = np.stack([np.asarray(sample.metainfo[name]) for sample in samples])
    except KeyError as error:
        raise InputError(
            f'Expected {name!r} in the metainfo of the data samples, received '
            f'{sorted(samples[0].metainfo)}: let the packing transform keep it.'
        ) from error
    if matrices.shape != (len(samples), cameras, 4, 4):
        raise InputError(
            f'Expected {name!r} ({cameras}, 4, 4) for {cameras} cameras in each data sample, '
            f'received {matrices.shape[1:]}.'
        )
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.as_tensor(matrices, dtype=dtype, device=like.device)
