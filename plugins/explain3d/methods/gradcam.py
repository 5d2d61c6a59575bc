"""Grad-CAM (Selvaraju et al., ICCV 2017), carried over to voxels."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.gradients import reduce_gradients
from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('GradCAM')
class GradCAM(FeatureMapExplainer):
    """Weights each channel by its mean gradient: Phi(ReLU(sum_c mean_m(G_mc) F_mc)).

    The mean runs over the occupied voxels. Over all cells of the grid it would be smaller by a
    factor common to all channels, which Phi removes.
    """

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised maps over the voxels."""
        features = full_precision(trace.features.values)
        maps = reduce_gradients(trace, targets, lambda G: (features @ G.mean(dim=0)).relu())
        return Maps({name: min_max(values) for name, values in maps.items()})
