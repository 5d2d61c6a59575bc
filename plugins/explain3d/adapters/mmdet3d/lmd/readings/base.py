"""What a family of heads has to tell so that its detections can be read out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from .....core.errors import NotApplicableError
from .....lmd.detections import Reading
from ....common.candidates import Candidates


class HeadReadings(ABC):
    """Where one frame's raw outputs of a head stand in its maps.

    Args:
        head: The head.
        name: The head's path, with which the names of its maps begin.
        maps: The frame's maps by 'path.position': those of the structure that the head's
            ``forward`` returns, and of the layers inside it.
    """

    #: The class that rebuilds the head's candidates.
    candidates_type: ClassVar[type[Candidates]]

    def __init__(self, head: nn.Module, name: str, maps: Mapping[str, Tensor]) -> None:
        self.head, self.name, self.maps = head, name, maps

    @classmethod
    def layers(cls, head: nn.Module) -> tuple[str, ...]:
        """Returns the paths inside the head whose outputs are read besides its own."""
        return ()

    @classmethod
    def state(cls, head: nn.Module) -> dict[str, Tensor]:
        """Returns what the head keeps of its last pass, (B, ...) each, that ``maps`` have too."""
        return {}

    @abstractmethod
    def candidates(self) -> Candidates:
        """Returns everything that the head could have reported for this frame."""

    @abstractmethod
    def read(self, candidates: Candidates, index: Tensor, labels: Tensor) -> list[Reading]:
        """Returns where each raw attribute of the detections stands.

        Args:
            candidates: Of ``candidates()``.
            index: (K,) which of them each detection is.
            labels: (K,) the detections' classes.
        """

    def again(self, readings: Sequence[Reading], labels: Tensor) -> list[Reading]:
        """Returns the readings of another frame's detections at the same places of this one.

        Args:
            readings: Those of the other frame.
            labels: (K,) the classes of its detections.
        """
        return list(readings)

    def paths(self) -> dict[str, Tensor]:
        """Returns the head's maps by their positions."""
        start = f'{self.name}.'
        return {k[len(start) :]: v for k, v in self.maps.items() if k.startswith(start)}


def several_levels() -> NotApplicableError:
    """Returns the error for a head with several maps of one kind."""
    return NotApplicableError('The head has maps of several levels: expected one.')
