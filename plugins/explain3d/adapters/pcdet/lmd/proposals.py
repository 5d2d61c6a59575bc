"""Where to begin in OpenPCDet's BevFusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ....core.errors import NotApplicableError, UnknownNameError
from ....lmd import Seed

LEVELS = ('sensors', 'branches')


def seeds_of(
    model: nn.Module, seeds: str | Sequence[Seed | Mapping[str, Any]] | None
) -> tuple[Seed, ...]:
    """Returns seeds as given, or those of a level of BevFusion.

    'branches' are the two maps that its fuser joins. Its camera branch reads LiDAR depth
    (``vtransform.dtransform``), so that 'sensors', the default, begin there as well: the image
    features are the camera, the depth image and the LiDAR map are the LiDAR.

    Args:
        model: The detector, without wrappers.
        seeds: A level, seeds or their dicts; None: 'sensors'.

    Raises:
        NotApplicableError: If the model is no BevFusion, and no seeds are given.
        UnknownNameError: If there is no such level.
    """
    if seeds is not None and not isinstance(seeds, str):
        return tuple(seed if isinstance(seed, Seed) else Seed(**seed) for seed in seeds)
    parts = [getattr(model, name, None) for name in ('fuser', 'vtransform')]
    if not all(isinstance(part, nn.Module) for part in parts):
        raise NotApplicableError(
            f'{type(model).__name__} has no fuser and vtransform: expected BevFusion, or '
            "seeds=[dict(module='fuser', path='0.spatial_features', modality='lidar'), ...]."
        )
    lidar = Seed('fuser', path='0.spatial_features', modality='lidar')
    if seeds in (None, 'sensors'):
        image = Seed('vtransform', path='0.image_fpn.0', modality='camera')
        return image, Seed('vtransform.dtransform', modality='lidar'), lidar
    if seeds == 'branches':
        return Seed('fuser', path='0.spatial_features_img', modality='camera'), lidar
    raise UnknownNameError(
        f'Unknown level {seeds!r} of modalities: expected one of {list(LEVELS)}.'
    )
