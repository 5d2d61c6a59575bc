"""Contribution: what each channel of a late layer adds to a detection, without a factorisation."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.checks import require_number
from ..core.gradients import reduce_gradients
from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer


@EXPLAINERS.register('Contribution')
class Contribution(FeatureMapExplainer):
    """Sums the sizes of the channels' first-order contributions: Phi(sum_c |G_mc F_mc|)^contrast.

    Each channel is weighted by its own gradient, where FFAM multiplies the sum of all gradients by
    the sum of all concepts, so that a channel counts that is active but does not concern the
    detection. Nothing cancels, as it does in ``GradientTimesInput`` (|sum_c G_mc F_mc|).

    It explains the last sparse layer rather than the paper's: what is close to the head has been
    seen in context, its voxels are few, and the backward pass is short. Because they are large,
    the way to the points is by the distance to their centres.

    docs/better_explainer.md has what it was chosen from, and what it gains and does not.

    Args:
        layer: As in ``Explainer``.
        seed: Not used.
        contrast: Exponent. It does not change which points come first (nor Deletion, Insertion and
            the pointing game, but for what averaging over neighbours does), only how steeply the
            map falls off: more is sharper (enPG rises), less is flatter.
        radius: As in ``FeatureMapExplainer``.
        k: Likewise.
        upsampling: Likewise.

    Raises:
        InputError: If the contrast is not positive.
    """

    def __init__(
        self,
        layer: str = 'stride8',
        seed: int = 0,
        *,
        contrast: float = 1.5,
        radius: int = 2,
        k: int = 16,
        upsampling: str = 'gaussian',
    ) -> None:
        super().__init__(layer, seed, radius=radius, k=k, upsampling=upsampling)
        self.contrast = require_number('a contrast', contrast, above=0)

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns the normalised maps over the voxels."""
        features = full_precision(trace.features.values)
        maps = reduce_gradients(trace, targets, lambda G: (G * features).abs().sum(dim=1))
        return Maps({name: min_max(values) ** self.contrast for name, values in maps.items()})
