"""Which name a label has: the detector's own order of classes against the data set's."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ...core.errors import InputError


def check_class_order(
    ours: Sequence[str], theirs: Sequence[str], where: str, logger: logging.Logger | None = None
) -> None:
    """Refuses class names that give a label another name than the detector does.

    Letter case does not count. Names of which not one is the same, as of a detector for other
    data, may be right: they are told to the log.

    Args:
        ours: Names by label, those of the data set.
        theirs: Names by label, where the detector has its own; empty where it has none.
        where: Whose the detector's names are, for the message.
        logger: The host's logger.

    Raises:
        InputError: If they share a name and are not the same; the message names both.
    """
    if not ours or not theirs:
        return
    a, b = ([str(name).lower() for name in names] for names in (ours, theirs))
    if a == b:
        return
    text = (
        f'The classes of the data set are {list(ours)}, those of {where} {list(theirs)}: a label '
        'has another name in each.'
    )
    if set(a) & set(b):
        raise InputError(
            f'{text} Expected the same names in the same order: give the data set those of the '
            'detector (metainfo=dict(classes=...) in MMDetection3D, CLASS_NAMES in OpenPCDet).'
        )
    (logger or logging.getLogger('explain3d')).warning(
        f'{text} Those of the data set are taken: make sure that they are in the order of the '
        'labels.'
    )
