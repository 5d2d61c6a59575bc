"""What the families of OpenPCDet's heads have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from ....core.errors import NotApplicableError
from ...common.candidates import Candidates


class HostCandidates(Candidates):
    """Everything that a head could have reported for one frame, with an autograd graph.

    Args:
        head: The head.
        batch: OpenPCDet's ``batch_dict`` at the time of the call.
        args: Positional arguments with which the host called the method.
        kwargs: Keyword arguments of the same call.
    """

    intercepts = 'generate_predicted_boxes'
    #: Whether the method is the detector's own and not the head's.
    of_detector: ClassVar[bool] = False
    #: Whether the head suppresses boxes itself: what the detector reports is what the head gives.
    suppresses: ClassVar[bool] = False

    @abstractmethod
    def __init__(
        self, head: nn.Module, batch: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None: ...

    @classmethod
    def maps_of(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns the raw outputs among the method's arguments; maps as (B, C, H, W).

        Raises:
            NotApplicableError: If the family is not ``dense``.
        """
        raise NotApplicableError(f'{cls.__name__}: expected a head with dense maps.')

    @classmethod
    def of_maps(cls, head: nn.Module, maps: Any) -> HostCandidates:
        """Returns the candidates of what ``maps_of`` gave, of a batch of one frame."""
        raise NotApplicableError(f'{cls.__name__}: expected a head with dense maps.')


def rows_of(value: Tensor) -> Tensor:
    """(H * W, C) out of a (1, C, H, W) map."""
    return value[0].flatten(1).T
