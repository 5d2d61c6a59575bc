"""FFAM: the feature factorisation activation map (Liu et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..core.checks import require_choice, require_flag, require_number, require_whole
from ..core.errors import InputError
from ..core.gradients import reduce_gradients
from ..core.nmf import (
    INITS,
    LOSSES,
    NEGATIVE_POLICIES,
    SOLVERS,
    Factorization,
    factorize,
    make_nonnegative,
)
from ..core.normalize import full_precision, min_max
from ..core.structures import Maps, Trace
from ..core.targets import Target
from ..core.upsampling import NeighbourTable
from .base import EXPLAINERS
from .feature_maps import FeatureMapExplainer, weight_by

#: What an option is where it is not given.
EQUATIONS: dict[str, Any] = {
    'rank': 16,
    'loss': 'frobenius',
    'init': 'coarse',
    'tol': 1e-4,
    'negative': 'refuse',
    'unit_concepts': True,
    'max_weight': False,
    'upsampling': 'manhattan',
    'renormalize': False,
}
#: The same for the choices of the released code.
RELEASED: dict[str, Any] = {
    'rank': 64,
    'loss': 'kl',
    'init': 'random',
    'tol': 0.0,
    'negative': 'shift',
    'unit_concepts': False,
    'max_weight': 50.0,
    'upsampling': 'reference',
    'renormalize': True,
}


@EXPLAINERS.register('FFAM')
class FFAM(FeatureMapExplainer):
    """Factorises a layer's features into concepts and refines their sum by gradients.

    The sum V of the concepts' weights (Eq. 2-4) shows where in the frame there is something to
    detect. The gradient's magnitude omega shows what concerns one detection (Eq. 5-7). Their
    product, each scaled to [0, 1], is carried to the points (Eq. 8-10).

    ``reference=True`` reproduces what the released code does where it differs from the equations.
    It only changes the defaults: an option that is given wins, so each difference can be measured
    by itself. Where the released code has NaN, for a constant map, there are zeros.

    Args:
        layer: As in ``Explainer``. The paper's is stride 4, with 64 channels.
        rank: Number r of concepts, 16. The paper reports 64, as many as the layer has channels:
            there W = I is an exact factorisation, and V is the sum of the channels. Reference: 64.
        loss: ``'frobenius'`` (Eq. 2) or ``'kl'``. Reference: ``'kl'``.
        solver: ``'hals'`` or ``'mu'``; by default HALS for Frobenius, and MU for KL.
        init: ``'coarse'``, ``'nndsvd'`` or ``'random'``, see ``core.nmf``. Reference: ``'random'``.
        max_iter: Most iterations of the factorisation.
        tol: Its tolerance, 1e-4. Reference: 0, always ``max_iter`` iterations.
        negative: What to do about negative features: ``'refuse'``, ``'shift'`` each channel by its
            minimum, or ``'clip'``. Reference: ``'shift'``.
        unit_concepts: Scale concept vectors to unit Euclidean norm, and their weights to match,
            before the weights are summed. Reference: no.
        max_weight: Limit of the weights before they are summed; ``False`` for none. Reference: 50.
        radius: Largest Manhattan distance of a neighbour, in voxels.
        k: Largest number of neighbours of a point.
        upsampling: As in ``FeatureMapExplainer``. Reference: ``'reference'``.
        renormalize: Scale the maps to [0, 1] once more over the points. Reference: yes.
        concepts: Return a map per concept.
        warm_start: Keep the dictionary of the first frame and solve the later ones for the weights
            alone, so that a concept means the same throughout a sequence. Results then depend on
            which frame came first; ``dictionary = None`` starts afresh.
        reference: Take the released code's choices for defaults.
        seed: Seed of ``init='random'``.

    A frame with fewer voxels than concepts is factorised with as many concepts as it has voxels
    where the initialisation asks for that; ``Maps.info`` has the number.
    """

    def __init__(
        self,
        layer: str = 'stride4',
        rank: int | None = None,
        *,
        loss: str | None = None,
        solver: str | None = None,
        init: str | None = None,
        max_iter: int = 200,
        tol: float | None = None,
        negative: str | None = None,
        unit_concepts: bool | None = None,
        max_weight: float | bool | None = None,
        radius: int = 2,
        k: int = 16,
        upsampling: str | None = None,
        renormalize: bool | None = None,
        concepts: bool = True,
        warm_start: bool = False,
        reference: bool = False,
        seed: int = 0,
    ) -> None:
        defaults = RELEASED if require_flag('reference', reference) else EQUATIONS

        def choose(name: str, given: Any) -> Any:
            return defaults[name] if given is None else given

        upsampling = choose('upsampling', upsampling)
        super().__init__(layer, seed, radius=radius, k=k, upsampling=upsampling)
        self.rank = require_whole('rank', choose('rank', rank))
        self.loss = require_choice('loss', choose('loss', loss), LOSSES)
        solvers = SOLVERS[self.loss]
        self.solver = require_choice(f'solver for {self.loss}', solver, solvers, optional=True)
        self.init = require_choice('init', choose('init', init), INITS)
        self.max_iter = require_whole('max_iter', max_iter)
        self.tol = require_number('tol', choose('tol', tol), least=0)
        self.negative = require_choice('negative', choose('negative', negative), NEGATIVE_POLICIES)
        self.unit_concepts = require_flag('unit_concepts', choose('unit_concepts', unit_concepts))
        self.max_weight = choose('max_weight', max_weight)
        if self.max_weight is not False:
            require_number('max_weight', self.max_weight, above=0)
        self.renormalize = require_flag('renormalize', choose('renormalize', renormalize))
        self.concepts = require_flag('concepts', concepts)
        self.warm_start = require_flag('warm_start', warm_start)
        self.reference = reference
        #: (rank, C) concepts to explain every frame with; set it to use those of another run.
        self.dictionary: Tensor | None = None

    def settings(self) -> dict:
        """Returns the settings in force as plain data; the dictionary is a state, not a setting."""
        settings = super().settings()
        del settings['dictionary']
        return settings

    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Returns M of Eq. 7, Phi(V) and the concepts' weights over the voxels."""
        return self.refined(trace, reduce_gradients(trace, targets))

    def refined(self, trace: Trace, omega: dict[str, Tensor]) -> Maps:
        """Returns the same, given the (K, M) omega of each target (Eq. 5 to 7)."""
        factors = self.factorize(full_precision(trace.features.values))
        weights = factors.H
        if self.max_weight is not False:
            weights = weights.clamp(max=self.max_weight)
        global_map = min_max(weights.sum(dim=1))
        return Maps(
            saliency=weight_by(omega, global_map),
            global_map=global_map,
            concepts=_share_scale(weights.T) if self.concepts else None,
            info=factors.info(),
        )

    def factorize(self, features: Tensor) -> Factorization:
        """Finds the concepts of one frame (Eq. 2 and 3).

        Args:
            features: (M, C) features of the frame.

        Returns:
            The factors, scaled as the settings say.

        Raises:
            InputError: If the features are negative and that is refused, or not finite, or have
                fewer channels than there are concepts.
        """
        features = make_nonnegative(features, self.negative)
        factors = factorize(
            features,
            self._rank_for(features),
            loss=self.loss,
            init=self.init,
            solver=self.solver,
            max_iter=self.max_iter,
            tol=self.tol,
            seed=self.seed,
            W=self.dictionary,
            fixed=self.dictionary is not None,
        )
        factors = factors.normalized() if self.unit_concepts else factors
        usable = factors.iterations and factors.rank == self.rank
        if self.warm_start and self.dictionary is None and usable:
            self.dictionary = factors.W
        return factors

    def to_points(self, maps: Maps, table: NeighbourTable) -> Maps:
        """Returns ``maps`` over the points; the released code normalises them once more."""
        result = super().to_points(maps, table)
        if self.renormalize:
            for values in result.saliency.values():
                values[:, table.inside] = min_max(values[:, table.inside])
        return result

    def _rank_for(self, features: Tensor) -> int:
        M, C = features.shape
        if self.init == 'random' or self.dictionary is not None:
            return self.rank
        if self.rank > C:
            raise InputError(
                f'Expected at most as many concepts as the layer {self.layer!r} has channels '
                f"({C}), received rank={self.rank}: lower it or use init='random'."
            )
        return min(self.rank, M) if M else self.rank


def _share_scale(maps: Tensor) -> Tensor:
    """Divides maps (r, M) by the largest value of all, so that concepts can be compared."""
    largest = maps.amax() if maps.numel() else maps.new_zeros(())
    return maps / largest.masked_fill(largest == 0, 1)
