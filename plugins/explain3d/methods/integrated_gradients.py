"""Integrated gradients (Sundararajan et al., ICML 2017), on a layer's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..core.checks import require_whole
from ..core.errors import NotApplicableError
from ..core.gradients import attribute_gradients, require_graph
from ..core.normalize import full_precision, min_max, require_finite
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('IntegratedGradients')
class IntegratedGradients(FeatureMapExplainer):
    """Adds up gradients on the straight path from no features to the layer's features.

    IG_m = sum_c F_mc * mean_s G_mc(a_s F), a_s = (s - 1/2) / steps (the midpoint rule); the map is
    Phi(|IG|). Over the voxels, IG adds up to f(F) - f(0), f being the target; ``Maps.info`` has
    the largest deviation from that as ``completeness_error``, relative to the largest change.
    Where f is not smooth (a box's yaw turns by a half, sizes are an exponential) it takes many
    steps.

    Needs a trace that can be run again from the layer (``Trace.replay``): each step is a pass.

    Args:
        layer: As in ``FeatureMapExplainer``, like all others.
        seed: Not used.
        steps: Passes.
        radius: As in ``FeatureMapExplainer``.
        k: Likewise.
        upsampling: Likewise.

    Raises:
        InputError: If there is not at least one step.
    """

    def __init__(
        self,
        layer: str = 'stride4',
        seed: int = 0,
        *,
        steps: int = 20,
        radius: int = 2,
        k: int = 16,
        upsampling: str = 'manhattan',
    ) -> None:
        super().__init__(layer, seed, radius=radius, k=k, upsampling=upsampling)
        self.steps = require_whole('steps', steps)

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised maps over the voxels.

        Raises:
            NotApplicableError: If the trace cannot be run again.
        """
        if trace.replay is None:
            raise NotApplicableError(
                'Integrated gradients run the network again from the layer, with other features: '
                'expected a trace with "replay", received one without. Use an adapter that gives '
                'it (MMDetection3D), or GradientTimesInput.'
            )
        features = full_precision(trace.features.values)
        K, M = len(trace.detections), features.shape[0]
        parts = {
            target.name: [features.new_zeros(K, M) for _ in _terms(target)] for target in targets
        }
        if not (K and M):
            return Maps({name: features.new_zeros(K, M) for name in parts})
        require_graph(trace, targets)
        require_finite(features, 'feature')
        for step in range(self.steps):
            here = _at(trace, (step + 0.5) / self.steps)
            for k, gradients in attribute_gradients(here, targets):
                for target in targets:
                    for part, gradient in zip(
                        parts[target.name], gradients.of(target), strict=True
                    ):
                        part[k] += (gradient * features).sum(dim=1) / self.steps
        maps = {name: sum(part.abs() for part in some) for name, some in parts.items()}
        error = _completeness_error(trace, _at(trace, 0.0), targets, parts)
        info = {'steps': self.steps, 'completeness_error': error}
        return Maps({name: min_max(values) for name, values in maps.items()}, info=info)


def _at(trace: Trace, scale: float) -> Trace:
    """Returns the trace of the same detections with the features multiplied by ``scale``."""
    with torch.enable_grad():
        leaf, attributes = trace.replay(trace.leaf.detach() * scale)
    return replace(trace, leaf=leaf, attributes=attributes)


def _terms(target: Target) -> list[tuple[str, ...]]:
    """Returns the attributes of each scalar that ``DetectionGradients.of`` has a gradient of."""
    if target.combine == 'abs':
        return [(name,) for name in target.attributes]
    return [tuple(target.attributes)]


def _completeness_error(
    full: Trace, empty: Trace, targets: Sequence[Target], parts: dict[str, list[Tensor]]
) -> float:
    """Returns the largest |sum of IG - (f(F) - f(0))| over the largest |f(F) - f(0)|."""
    worst, largest = 0.0, 0.0
    for target in targets:
        for names, part in zip(_terms(target), parts[target.name], strict=True):
            change = _value(full, target, names) - _value(empty, target, names)
            worst = max(worst, float((part.sum(dim=1) - change).abs().amax()))
            largest = max(largest, float(change.abs().amax()))
    return worst / largest if largest else worst


def _value(trace: Trace, target: Target, names: tuple[str, ...]) -> Tensor:
    """Returns the (K,) scalars that were differentiated."""
    values = [full_precision(trace.attributes[name].detach()) for name in names]
    return sum(values) if target.combine == 'abs' else sum(value.abs() for value in values)
