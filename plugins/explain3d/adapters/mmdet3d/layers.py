"""The layers of a detector of MMDetection3D that can be explained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...core.errors import NotApplicableError
from ...core.receptive_field import Grid
from ...core.session import frozen_evaluation
from ..common.layers import PILLARS, LayerInfo, with_aliases
from ..common.probe import GridProbe
from .detector import Backbone, backbone_of, voxel_layer

#: What detectors call the module in which the LiDAR's map meets those of other sensors.
_FUSERS = ('fuser', 'fusion_layer')


def layers(model: nn.Module) -> list[LayerInfo]:
    """Lists the layers of a detector that can be explained, in the order in which they run.

    One voxel is sent through the middle encoder, the 2D backbone and the neck to see which modules
    run, what they give, and on which grid. The model is left as found. Where the LiDAR's map is
    fused with those of other sensors, the list ends there: features behind it are not the points'.

    Args:
        model: A voxel or pillar detector of MMDetection3D, without wrappers.

    Raises:
        NotApplicableError: If the model has no voxel grid.
    """
    backbone = backbone_of(model)
    with frozen_evaluation(model), torch.no_grad():
        found = _run(model, backbone)
    return with_aliases(found, backbone.path_of('middle_encoder'), backbone.path_of('neck'))


def _run(model: nn.Module, backbone: Backbone) -> list[LayerInfo]:
    """Runs one voxel through the detector's backbone and takes notes."""
    parts = dict(backbone.parts)
    middle = backbone.path_of('middle_encoder')
    encoder = parts.pop(middle)
    probe = _probe_of(model, encoder)
    voxel_encoder = next((p for p in parts if p.endswith('voxel_encoder')), None)
    parts.pop(voxel_encoder, None)
    channels = getattr(encoder, 'in_channels', None)
    if channels is None:
        raise NotApplicableError(
            f'{type(encoder).__name__} does not say its in_channels: expected a middle encoder '
            'of MMDetection3D (SparseEncoder, SparseUNet, PointPillarsScatter, ...).'
        )
    if voxel_encoder is not None:
        probe.note(voxel_encoder, PILLARS, channels, Grid.of_input(probe.input_shape))
    like = next(model.parameters())
    features = like.new_zeros(1, channels)
    cell = [0, *(n // 2 for n in probe.input_shape)]
    coordinates = torch.tensor([cell], dtype=torch.int32, device=like.device)
    # SASSD trains an auxiliary network inside its encoder, which this flag leaves out.
    flags = {'test_mode': True} if _accepts(encoder.forward, 'test_mode') else {}
    with probe.watching(middle, encoder):
        value = _map_of(encoder(features, coordinates, 1, **flags))
    if any(isinstance(getattr(model, name, None), nn.Module) for name in _FUSERS):
        return list(probe.found.values())
    for path, module in parts.items():
        with probe.watching(path, module):
            value = module(value)
    return list(probe.found.values())


def _probe_of(model: nn.Module, encoder: nn.Module) -> GridProbe:
    layer = voxel_layer(model)
    size = [float(v) for v in layer.voxel_size]
    limits = [float(v) for v in layer.point_cloud_range]
    cells = [round((b - a) / v) for a, b, v in zip(limits, limits[3:], size, strict=False)]
    flat = (1, getattr(encoder, 'ny', cells[1]), getattr(encoder, 'nx', cells[0]))
    return GridProbe(limits[:3], size, cells[2], getattr(encoder, 'sparse_shape', None) or flat)


def _map_of(output: Any) -> Any:
    """SparseUNet gives a dict, encoders with middle features a tuple: the map is what goes on."""
    if isinstance(output, dict):
        output = output['spatial_features']
    return output[0] if isinstance(output, tuple) else output


def _accepts(function: Callable, name: str) -> bool:
    return name in inspect.signature(function).parameters
