"""FFAM without the factorisation: what its concepts have to beat."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer, weight_by_gradient


@EXPLAINERS.register('ChannelSum')
class ChannelSum(FeatureMapExplainer):
    """Takes the sum of the features over the channels for V in Eq. 7 of FFAM.

    Negative features need no treatment: a shift of a channel shifts the sum, and Phi undoes that.
    """

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns Phi(omega) * Phi(sum of channels) over the voxels."""
        global_map = min_max(full_precision(trace.features.values).sum(dim=1))
        return Maps(weight_by_gradient(trace, targets, global_map), global_map)
