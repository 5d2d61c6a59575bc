"""Gradient times input (Shrikumar et al., 2016), on a layer's features."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.gradients import reduce_gradients
from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('GradientTimesInput')
class GradientTimesInput(FeatureMapExplainer):
    """Takes the size of each voxel's first-order contribution: Phi(|sum_c G_mc F_mc|).

    ODAM keeps the contributions in favour alone, this those against as well.
    """

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised maps over the voxels."""
        features = full_precision(trace.features.values)
        maps = reduce_gradients(trace, targets, lambda G: (G * features).sum(dim=1).abs())
        return Maps({name: min_max(values) for name, values in maps.items()})
