"""ODAM (Zhao and Chan, ICLR 2023), carried over to voxels."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.gradients import reduce_gradients
from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('ODAM')
class ODAM(FeatureMapExplainer):
    """Weights each feature by its own gradient: Phi(ReLU(sum_c G_mc F_mc)).

    The paper smooths its weights over image windows; sparse voxels have none, so that is left out.
    """

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised maps over the voxels."""
        features = full_precision(trace.features.values)
        maps = reduce_gradients(trace, targets, lambda G: (G * features).sum(dim=1).relu())
        return Maps({name: min_max(values) for name, values in maps.items()})
