"""What methods that start from a layer's features share: the layer and the way to the points."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..core.checks import require_choice, require_whole
from ..core.errors import InputError, NotApplicableError
from ..core.gradients import reduce_gradients
from ..core.normalize import min_max, require_all_finite
from ..core.precision import full_precision_kernels
from ..core.structures import Maps, Trace
from ..core.targets import Target
from ..core.upsampling import MODES, NeighbourTable, find_neighbours
from .base import Explainer

#: Largest radius of neighbours, in voxels: the number of cells around a point grows as its cube.
MAX_RADIUS = 10


class FeatureMapExplainer(Explainer):
    """Explains over the voxels of a layer and carries the maps to the points (Eq. 8-10 of FFAM).

    A method implements ``voxel_maps``.

    Args:
        layer: As in ``Explainer``.
        seed: As in ``Explainer``.
        radius: Largest Manhattan distance of a neighbour, in voxels of the layer; at most
            ``MAX_RADIUS``.
        k: Largest number of neighbours of a point.
        upsampling: ``'manhattan'`` (Eq. 8-10), ``'gaussian'`` (by the distance from the point to
            the voxel's centre), or ``'reference'`` (FFAM's released code); see
            ``core.upsampling.find_neighbours``.
    """

    def __init__(
        self,
        layer: str = 'stride4',
        seed: int = 0,
        *,
        radius: int = 2,
        k: int = 16,
        upsampling: str = 'manhattan',
    ) -> None:
        super().__init__(layer, seed)
        self.radius = require_whole('radius', radius, least=0, most=MAX_RADIUS)
        self.k = require_whole('k', k)
        self.upsampling = require_choice('upsampling', upsampling, MODES)

    @abstractmethod
    def voxel_maps(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Explains over the M voxels: ``Maps`` with M in the place of N."""

    def explain(self, trace: Trace, targets: Sequence[Target]) -> Maps:
        """Explains every detection of ``trace`` for every target; see ``Explainer.explain``.

        Raises:
            InputError: If points, features or gradients are not finite or do not fit the method.
            NotApplicableError: If a target has no gradient at the layer.
        """
        with explaining(trace):
            table = self.neighbours(trace)
            return self.to_points(self.voxel_maps(trace, targets), table)

    def neighbours(self, trace: Trace) -> NeighbourTable:
        """Finds the voxels around each point (Eq. 8 of FFAM)."""
        features = trace.features
        return find_neighbours(trace.points, features, self.radius, self.k, self.upsampling)

    def to_points(self, maps: Maps, table: NeighbourTable) -> Maps:
        """Returns ``maps`` over the points (Eq. 10 of FFAM).

        Raises:
            InputError: If a value is NaN or infinite.
        """
        extra = [values for values in (maps.global_map, maps.concepts) if values is not None]
        require_all_finite([*maps.saliency.values(), *extra], 'map')

        def carry(values: Tensor | None) -> Tensor | None:
            return None if values is None else table.carry(values)

        saliency = {name: table.carry(values) for name, values in maps.saliency.items()}
        return Maps(saliency, carry(maps.global_map), carry(maps.concepts), maps.info)


def weight_by_gradient(
    trace: Trace, targets: Sequence[Target], global_map: Tensor
) -> dict[str, Tensor]:
    """Refines a map of the frame to each detection: Phi(omega) * map (Eq. 7 of FFAM).

    Args:
        trace: K detections over M voxels.
        targets: What of each detection to explain.
        global_map: (M,) normalised map of the frame.

    Returns:
        (K, M) for each target's name.
    """
    return weight_by(reduce_gradients(trace, targets), global_map)


def weight_by(omega: dict[str, Tensor], global_map: Tensor) -> dict[str, Tensor]:
    """Returns Phi(omega) * map for the (K, M) omega of each target."""
    return {name: min_max(values) * global_map for name, values in omega.items()}


@contextmanager
def explaining(trace: Trace) -> Iterator[None]:
    """Around what a method computes of a trace: exact products, errors with the frame's name."""
    # A host's autocast would silently run our products in half precision, and TF32 in less.
    exact = torch.autocast(trace.features.values.device.type, enabled=False)
    with naming_frame(trace.frame_id), torch.no_grad(), exact, full_precision_kernels():
        yield


@contextmanager
def naming_frame(frame_id: str) -> Iterator[None]:
    """Puts the frame's name in front of the message of an error about its content."""
    try:
        yield
    except (InputError, NotApplicableError) as error:
        if not frame_id:
            raise
        raise type(error)(f'Frame {frame_id!r}: {error}') from error
