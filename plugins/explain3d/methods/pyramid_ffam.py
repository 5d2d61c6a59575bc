"""PyramidFFAM: FFAM at a fine and at a coarse layer, multiplied at the points."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..core.checks import require_choice, require_number, require_text, require_whole
from ..core.errors import NotApplicableError
from ..core.gradients import reduce_at
from ..core.structures import Maps, Trace
from ..core.targets import Target
from ..core.upsampling import MODES
from .base import EXPLAINERS, Explainer
from .feature_maps import MAX_RADIUS, explaining
from .ffam import FFAM


@EXPLAINERS.register('PyramidFFAM')
class PyramidFFAM(Explainer):
    """Multiplies FFAM's maps of two layers at the points: (M_fine M_coarse)^contrast.

    The fine layer knows which points of an object count, the coarse one, which has seen them in
    context, which points are the object's. Each map is that of ``FFAM`` (Eq. 10), upsampled by the
    distance to the voxels' centres.

    docs/better_explainer.md has what it was chosen from, what it gains and what it costs.

    Args:
        layer: The fine layer, as in ``Explainer``.
        seed: As in ``FFAM``, not used by its defaults.
        coarse_layer: The coarse layer.
        contrast: Exponent. It does not change which points come first, only how steeply the map
            falls off: more is sharper (enPG rises), less is flatter.
        rank: As in ``FFAM``, at both layers.
        radius: Likewise.
        k: Likewise.
        upsampling: Likewise.

    Raises:
        InputError: If the contrast is not positive.
    """

    def __init__(
        self,
        layer: str = 'stride4',
        seed: int = 0,
        *,
        coarse_layer: str = 'stride8',
        contrast: float = 0.6,
        rank: int = 16,
        radius: int = 2,
        k: int = 16,
        upsampling: str = 'gaussian',
    ) -> None:
        super().__init__(layer, seed)
        self.coarse_layer = require_text('coarse_layer', coarse_layer, 'stride8', optional=False)
        self.contrast = require_number('a contrast', contrast, above=0)
        self.rank = require_whole('rank', rank)
        self.radius = require_whole('radius', radius, least=0, most=MAX_RADIUS)
        self.k = require_whole('k', k)
        self.upsampling = require_choice('upsampling', upsampling, MODES)

    @property
    def layers(self) -> tuple[str, ...]:
        """The fine and the coarse layer."""
        return self.layer, self.coarse_layer

    def explain(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Explains every detection of ``trace`` for every target; see ``Explainer.explain``.

        Raises:
            InputError: As ``FFAM``.
            NotApplicableError: As ``FFAM``, or if the trace is not one of two layers.
        """
        if len(trace.further) != 1:
            raise NotApplicableError(
                f'PyramidFFAM expected a trace at two layers, {self.layer} and '
                f'{self.coarse_layer}, received one at {1 + len(trace.further)}: let an adapter '
                'make it from the layers that the method names.'
            )
        traces = [trace, *trace.further]
        methods = [self._at(layer) for layer in self.layers]
        with explaining(trace):
            tables = [m.neighbours(t) for m, t in zip(methods, traces, strict=True)]
            omegas = reduce_at(traces, targets)
            fine, coarse = (
                m.to_points(m.refined(*of), table)
                for m, *of, table in zip(methods, traces, omegas, tables, strict=True)
            )
        saliency = {
            name: self._joined(values, coarse.saliency[name])
            for name, values in fine.saliency.items()
        }
        info = {
            f'{which}_{key}': value
            for which, maps in (('fine', fine), ('coarse', coarse))
            for key, value in maps.info.items()
        }
        return Maps(saliency, self._joined(fine.global_map, coarse.global_map), info=info)

    def _at(self, layer: str) -> FFAM:
        return FFAM(
            layer=layer,
            seed=self.seed,
            rank=self.rank,
            radius=self.radius,
            k=self.k,
            upsampling=self.upsampling,
            concepts=False,
        )

    def _joined(self, fine: Tensor, coarse: Tensor) -> Tensor:
        # In float64: a power in float32 depends on where in memory a value stands.
        return ((fine.double() * coarse.double()) ** self.contrast).to(fine.dtype)
