"""Detection heads of OpenPCDet: how each family turns its raw outputs into boxes and scores.

A new family is one file with a ``HostCandidates`` class, and one line in ``HEADS``.
"""

from __future__ import annotations

from torch import nn

from ....core.errors import UnknownNameError
from .anchor import AnchorCandidates
from .base import HostCandidates
from .center import CenterCandidates
from .convention import ConventionCandidates
from .roi import RoICandidates
from .transfusion import TransFusionCandidates
from .voxelnext import VoxelNeXtCandidates

#: Head class (a subclass counts as its parent) to the class that rebuilds its candidates.
HEADS: dict[str, type[HostCandidates]] = {
    'AnchorHeadTemplate': AnchorCandidates,
    'CenterHead': CenterCandidates,
    'VoxelNeXtHead': VoxelNeXtCandidates,
    'TransFusionHead': TransFusionCandidates,
    'RoIHeadTemplate': RoICandidates,
    # Whatever else returns its detections as OpenPCDet's detectors do.
    'any': ConventionCandidates,
}


def candidates_class(head: nn.Module, family: str | None = None) -> type[HostCandidates]:
    """Returns the class that rebuilds the candidates of ``head``.

    Args:
        head: The head.
        family: Which family it is to be taken for; None: that of the first of its classes that is
            in ``HEADS``, else ``'any'``.

    Raises:
        UnknownNameError: If there is no such family; the message lists those that there are.
    """
    if family is not None:
        if family not in HEADS:
            raise UnknownNameError(
                f'Unknown family of heads {family!r}: expected one of {sorted(HEADS)}.'
            )
        return HEADS[family]
    names = [parent.__name__ for parent in type(head).__mro__]
    return next((HEADS[name] for name in names if name in HEADS), ConventionCandidates)
