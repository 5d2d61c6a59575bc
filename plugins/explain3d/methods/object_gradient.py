"""The object-specific gradient alone: FFAM without the map of the frame (Table 10, OG)."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.gradients import reduce_gradients
from ..core.normalize import min_max, require_finite
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('ObjectGradient')
class ObjectGradient(FeatureMapExplainer):
    """Takes Phi(omega) of Eq. 7 of FFAM for the map: sum_c |G_mc|, scaled to [0, 1]."""

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised gradients over the voxels."""
        require_finite(trace.features.values, 'feature')
        maps = reduce_gradients(trace, targets)
        return Maps({name: min_max(values) for name, values in maps.items()})
