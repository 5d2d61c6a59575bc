"""Where to begin in detectors that are not ours and do not say it themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ....core.errors import NotApplicableError, UnknownNameError
from ....lmd import Seed


@dataclass(frozen=True)
class Proposal:
    """What is known of a detector.

    Attributes:
        seeds: Seeds by level; the first level is the default.
        sensors: What belongs to a modality where it is not what ``perturb`` knows.
    """

    seeds: Mapping[str, Sequence[Seed]]
    sensors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def proposed_seeds(model: nn.Module, level: str | None) -> tuple[Seed, ...]:
    """Returns where the model itself proposes to begin, or what is known of detectors of its kind.

    Args:
        model: The model.
        level: A level of modalities that the model or its kind has; None: its default.

    Raises:
        NotApplicableError: If neither says anything.
        UnknownNameError: If there is no such level.
    """
    if hasattr(model, 'lmd_seeds'):
        return tuple(model.lmd_seeds() if level is None else model.lmd_seeds(level))
    proposal = proposal_of(model)
    if proposal is None:
        raise NotApplicableError(
            f'{type(model).__name__} does not propose where to begin (lmd_seeds): expected '
            "seeds=[dict(module='path.of.fusion', path='0.0', modality='camera'), ...]."
        )
    level = next(iter(proposal.seeds)) if level is None else level
    if level not in proposal.seeds:
        raise UnknownNameError(
            f'Unknown level {level!r} of modalities: expected one of {list(proposal.seeds)}.'
        )
    return tuple(proposal.seeds[level])


def proposed_sensors(model: nn.Module) -> dict[str, Mapping[str, Any]]:
    """Returns what belongs to the modalities of detectors of the model's kind, beside the usual."""
    proposal = proposal_of(model)
    return dict(proposal.sensors) if proposal else {}


def proposal_of(model: nn.Module) -> Proposal | None:
    """Returns what is known of detectors of the model's kind, if anything."""
    found = (_bevfusion(model), _mvxnet(model))
    return next((proposal for proposal in found if proposal is not None), None)


def _bevfusion(model: nn.Module) -> Proposal | None:
    """BEVFusion of MMDetection3D's ``projects``: a fuser of [camera map, LiDAR map].

    'branches' are the fuser's two inputs. The camera's view transform reads LiDAR depth
    (``dtransform``), so that 'sensors' begin there as well: the image features are the camera,
    the depth image and the LiDAR map are the LiDAR.
    """
    transform = getattr(model, 'view_transform', None)
    if not isinstance(getattr(model, 'fusion_layer', None), nn.Module) or transform is None:
        return None
    lidar = Seed('fusion_layer', path='0.1', modality='lidar')
    branches = (Seed('fusion_layer', path='0.0', modality='camera'), lidar)
    sensors = branches
    if isinstance(getattr(transform, 'dtransform', None), nn.Module):
        image = Seed('view_transform', path='0', modality='camera')
        sensors = (image, Seed('view_transform.dtransform', modality='lidar'), lidar)
    # Its voxelisation fails on a cloud without a point.
    return Proposal(
        {'sensors': sensors, 'branches': branches}, {'lidar': dict(inputs=('points',), least=1)}
    )


def _mvxnet(model: nn.Module) -> Proposal | None:
    """MVXNet: image features of some levels join the points inside the dynamic voxel encoder."""
    encoder = getattr(model, 'pts_voxel_encoder', None)
    fusion = getattr(encoder, 'fusion_layer', None)
    if not isinstance(fusion, nn.Module) or not hasattr(fusion, 'img_levels'):
        return None
    place = 'pts_voxel_encoder.fusion_layer'
    camera = [Seed(place, path=f'0.{level}', modality='camera') for level in fusion.img_levels]
    lidar = Seed('pts_voxel_encoder', path='0', modality='lidar')
    return Proposal({'sensors': (*camera, lidar)}, {'lidar': dict(inputs=('points',), least=1)})
