"""Which detectors of OpenPCDet cannot be explained point by point, and what to use for them."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ...core.errors import NotApplicableError

_EXPECTED = (
    'expected a LiDAR detector of OpenPCDet with a VFE and a backbone on voxels or pillars '
    '(SECONDNet, PointPillar, CenterPoint, PVRCNN, VoxelRCNN, VoxelNeXt, ...)'
)


def require_voxels_alone(model: nn.Module) -> None:
    """Refuses a detector whose detections are no function of the voxels of one frame.

    Args:
        model: The detector, without wrappers.

    Raises:
        NotApplicableError: If it sees pictures, works on points, remembers frames, or merges
            flipped copies of a frame; the message says which, and names what explains it.
    """
    for applies, reason in _REASONS:
        if applies(model):
            raise NotApplicableError(f'{type(model).__name__} {reason}')


def flips_frames(model: nn.Module) -> bool:
    """Whether copies of a frame are flipped and their predictions merged (``DOUBLE_FLIP``)."""
    settings = getattr(getattr(model, 'dataset', None), 'dataset_cfg', None) or {}
    steps = settings.get('DATA_PROCESSOR', ())
    return any(step.get('DOUBLE_FLIP', False) for step in steps) or bool(
        getattr(getattr(model, 'dense_head', None), 'double_flip', False)
    )


def _has(*names: str) -> Callable[[nn.Module], bool]:
    """Whether a model has all of these modules."""
    return lambda model: all(isinstance(getattr(model, name, None), nn.Module) for name in names)


def _is(*names: str) -> Callable[[nn.Module], bool]:
    """Whether a model's class, or one that it inherits from, has one of these names."""
    return lambda model: _named(model, names)


def _named(module: object, names: tuple[str, ...]) -> bool:
    return any(parent.__name__ in names for parent in type(module).__mro__)


def _sees_pictures(model: nn.Module) -> bool:
    vfe, backbone = getattr(model, 'vfe', None), getattr(model, 'backbone_3d', None)
    return (
        _has('image_backbone')(model)
        or _named(vfe, ('ImageVFE',))
        or bool(getattr(backbone, 'use_img', False))
    )


def _works_on_points(model: nn.Module) -> bool:
    return _named(getattr(model, 'backbone_3d', None), ('PointNet2MSG', 'PointNet2Backbone')) or (
        _has('point_head')(model) and not _has('vfe')(model)
    )


_REASONS: tuple[tuple[Callable[[nn.Module], bool], str], ...] = (
    (
        _has('fuser', 'vtransform'),
        'fuses cameras and LiDAR: the methods for LiDAR points (FFAM, ODAM, ...) explain detectors '
        'of LiDAR alone. Which sensor made its boxes is told by '
        'explain3d.adapters.pcdet.sensor_shares(model, item) for a frame and '
        'explain3d.adapters.pcdet.sensor_report(model, dataset) for a data set '
        '(docs/sensor_shares.md).',
    ),
    (_sees_pictures, f'sees pictures of a camera: {_EXPECTED}.'),
    (
        _is('MPPNet', 'MPPNetE2E'),
        'joins the proposals of many frames, of which it keeps a memory: a detection is no '
        'function of its own frame, and a second pass over a frame would change the memory. '
        'Expected a detector that sees each frame alone; its first stage, a CenterPoint, can be '
        'explained with a configuration of its own (cfgs/waymo_models/centerpoint_4frames.yaml).',
    ),
    (
        flips_frames,
        'merges the predictions of flipped copies of a frame: expected one pass a frame. Use the '
        'configuration without DOUBLE_FLIP.',
    ),
    (_works_on_points, f'works on points, and has no voxel grid of its own: {_EXPECTED}.'),
)
