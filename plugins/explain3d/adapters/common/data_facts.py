"""What a data set says of its frames before the first one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import Logger
from typing import Any

from ...core.errors import InputError
from ...core.results import fingerprint
from .frame_names import FrameNames


@dataclass(frozen=True)
class DataFacts:
    """What a data set says of its frames; the adapters of the hosts find it out.

    Attributes:
        count: Number of frames; None where it is not known.
        parts: How many of the last parts of a point file's path name a frame.
        repeated: Names that several frames have all the same.
        names: The name of each frame, in the order of the data set; None where it is not known.
        annotated: Whether any frame has an annotated object of the classes; None where it is not
            known.
        classes: Names of the classes, in the order of the labels; empty where they are not known.
        kind: What kind of data the frames are of, as plain data.
        key: What frames are named by, where that is chosen.
    """

    count: int | None = None
    parts: int = 1
    repeated: frozenset[str] = frozenset()
    names: tuple[str | None, ...] | None = None
    annotated: bool | None = None
    classes: tuple[str, ...] = ()
    kind: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest of a run says of its data: under other names frames come twice."""
        names = {'key': self.key or 'default', 'parts of the path': self.parts}
        if self.repeated:
            names['repeated'] = fingerprint({'names': sorted(self.repeated)})[:12]
        return {**self.kind, 'frames named by': names}

    def frame_names(self, remedy: str = '', logger: Logger | None = None) -> FrameNames:
        """Returns what names the frames of a run over the data set; tells what is not as usual.

        Args:
            remedy: How frames get names, for the log; empty: it is not told.
            logger: The host's logger.
        """
        names = FrameNames(self.parts, self.repeated, self.count, remedy, logger)
        if logger is not None and self.parts > 1:
            logger.warning(
                'Point files of one name are in several folders: frames are named by the last '
                f'{self.parts} parts of the path, such as {self._example()!r}.'
            )
        if logger is not None and self.repeated:
            logger.warning(
                f'{len(self.repeated)} names are those of several frames, such as '
                f'{min(self.repeated)!r}: the number of the frame is appended to them. To name '
                f'them otherwise, {remedy}'
            )
        return names

    def _example(self) -> str | None:
        return next((name for name in self.names or () if name is not None), None)

    def require_annotation(self, why: str) -> None:
        """Refuses a data set without a single annotated object.

        Args:
            why: What needs annotations, for the message.

        Raises:
            InputError: If no frame has an object. What is not known passes.
        """
        if self.annotated is False:
            raise InputError(f'{why} needs annotated objects, received {self.no_annotation()}')

    def no_annotation(self) -> str:
        """Returns what is wrong with a data set without annotation, and the remedy."""
        frames = '' if self.count is None else f' ({self.count} frames)'
        classes = f' of the classes {list(self.classes)}' if self.classes else ''
        return (
            f'a data set{frames} without an annotated object{classes}: choose an annotated split '
            '(ann_file of MMDetection3D, DATA_SPLIT or INFO_PATH of OpenPCDet), or check the names '
            'of the classes.'
        )

    def warn(self, logger: Logger) -> None:
        """Tells the log if no frame has an annotation."""
        if self.annotated is False:
            logger.warning(
                f'There is {self.no_annotation()} What is found is explained, but nothing can be '
                'told to be a true or a false positive, and no map can be measured.'
            )


UNKNOWN = DataFacts()
