"""Where the raw attributes of MMDetection3D's detections stand in the maps of their head.

A new family is one file with a ``HeadReadings`` class, and one line in ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .....core.errors import NotApplicableError
from .....core.structures import Detections
from .....lmd.detections import Reading
from ....common.candidates import identify
from ...heads import candidates_class
from .anchor import AnchorReadings
from .base import HeadReadings
from .center import CenterReadings
from .transfusion import TransFusionReadings

FAMILIES: tuple[type[HeadReadings], ...] = (CenterReadings, AnchorReadings, TransFusionReadings)


def readings_class(head: nn.Module) -> type[HeadReadings]:
    """Returns the class that knows where the outputs of ``head`` stand.

    Raises:
        NotApplicableError: If the head's family is another.
    """
    wanted = candidates_class(head)
    for family in FAMILIES:
        if family.candidates_type is wanted:
            return family
    raise NotApplicableError(
        f'Which outputs of {type(head).__name__} make a detection is not known: expected '
        'CenterHead, Anchor3DHead, TransFusionHead or a subclass. Add its family to '
        'explain3d.adapters.mmdet3d.lmd.readings.'
    )


def readings_of(
    head: nn.Module, name: str, maps: Mapping[str, Tensor], found: Detections, frame_id: str
) -> list[Reading]:
    """Returns where each raw attribute of the detections of a frame stands.

    Args:
        head: A head of one of ``FAMILIES``.
        name: The head's path.
        maps: The frame's maps, as ``HeadReadings`` has them.
        found: The detections.
        frame_id: For messages.

    Raises:
        NotApplicableError: If the head's family is another, or it has several levels.
        InputError: If a detection is none of those that these maps can give.
    """
    reader = readings_class(head)(head, name, maps)
    candidates = reader.candidates()
    return reader.read(candidates, identify(candidates, found, frame_id), found.labels)
