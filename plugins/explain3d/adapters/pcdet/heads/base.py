"""What the families of OpenPCDet's heads have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

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

    @abstractmethod
    def __init__(
        self, head: nn.Module, batch: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None: ...


def rows_of(value: Tensor) -> Tensor:
    """(H * W, C) out of a (1, C, H, W) map."""
    return value[0].flatten(1).T
