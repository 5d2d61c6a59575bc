"""Detection heads: how each family turns its raw outputs into boxes and scores.

A new family is one file with a ``Candidates`` class, and one line in ``HEADS``.
"""

from __future__ import annotations

from torch import nn

from ....core.errors import NotApplicableError
from ...common.candidates import Candidates
from .anchor import AnchorCandidates
from .center import CenterCandidates
from .roi import PartA2Candidates, PVRCNNCandidates
from .shape_aware import ShapeAwareCandidates
from .transfusion import TransFusionCandidates

#: Head class (a subclass counts as its parent) to the class that rebuilds its candidates.
HEADS: dict[str, type[Candidates]] = {
    'Anchor3DHead': AnchorCandidates,
    'ShapeAwareHead': ShapeAwareCandidates,
    'CenterHead': CenterCandidates,
    'TransFusionHead': TransFusionCandidates,
    'PVRCNNBBoxHead': PVRCNNCandidates,
    'PartA2BboxHead': PartA2Candidates,
}


def candidates_class(head: nn.Module) -> type[Candidates]:
    """Returns the class that rebuilds the candidates of ``head``.

    Raises:
        NotApplicableError: If the head's family is not known; the message lists those that are.
    """
    for parent in type(head).__mro__:
        if parent.__name__ in HEADS:
            return HEADS[parent.__name__]
    raise NotApplicableError(
        f'No targets can be built for the head {type(head).__name__}: expected one of '
        f'{sorted(HEADS)} or a subclass. Add its family to explain3d.adapters.mmdet3d.heads.HEADS.'
    )
