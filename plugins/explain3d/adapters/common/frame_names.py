"""Names of the frames of a run: each frame has one of its own, in all processes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from torch import distributed


class FrameNames:
    """Names frames by what the data say of them, and by a number where that is not enough.

    Samplers of both hosts hand out the frames of a data set in turns: the k-th frame of process r
    of w is number r + k w of the data set. Beyond its end they begin again, to give every process
    equally many.

    Args:
        parts: How many of the last parts of a path name a frame; 1 is the stem alone.
        repeated: Names that several frames have: the frame's number is appended to them.
        count: Number of frames of the data set; None where it is not known.
        remedy: How to give frames a name, for the warning about frames without one; empty: there
            is no warning.
        logger: The host's logger, default the one called ``explain3d``.
    """

    def __init__(
        self,
        parts: int = 1,
        repeated: Iterable[str] = (),
        count: int | None = None,
        remedy: str = '',
        logger: logging.Logger | None = None,
    ) -> None:
        self.parts, self.repeated, self.count = parts, frozenset(repeated), count
        self._remedy, self._logger = remedy, logger or logging.getLogger('explain3d')
        self._seen = 0
        self._warned = False

    def numbers(self, size: int) -> list[int]:
        """Returns the numbers in the data set of the next ``size`` frames of this process."""
        rank, world = process()
        first, self._seen = self._seen, self._seen + size
        return [rank + k * world for k in range(first, self._seen)]

    def is_repeat(self, number: int) -> bool:
        """Whether a sampler added the frame to give every process equally many."""
        return self.count is not None and number >= self.count

    def name(self, found: str | None, number: int) -> str:
        """Returns the name of a frame.

        Args:
            found: What the data call it, None for nothing.
            number: One of ``numbers``.
        """
        number = number % self.count if self.count else number
        if found is None:
            self._warn()
            return numbered(number)
        return f'{found}+{number:06d}' if found in self.repeated else found

    def _warn(self) -> None:
        if self._remedy and not self._warned:
            self._warned = True
            self._logger.warning(
                'The frames have no names: they are numbered in the order in which they come. To '
                f'name them, {self._remedy}'
            )


def numbered(number: int) -> str:
    """Returns the name of a frame without one."""
    return f'frame_{number:06d}'


def process() -> tuple[int, int]:
    """Returns the rank of this process and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def name_of_path(path: str, parts: int = 1) -> str:
    """Returns the last parts of a path without the suffix, joined by ``/``."""
    pure = PurePosixPath(str(path).replace('\\', '/'))
    return '/'.join([*pure.parts[-parts:-1], pure.stem])


def parts_needed(paths: Iterable[str]) -> int:
    """Returns how many of their last parts tell paths apart, 1 if the stems do.

    Paths that differ in the suffix alone cannot be told apart by any number.
    """
    known = {str(path).replace('\\', '/') for path in paths}
    most = max((len(PurePosixPath(path).parts) for path in known), default=1)
    for parts in range(1, most + 1):
        if len({name_of_path(path, parts) for path in known}) == len(known):
            return parts
    return 1


def repeated_names(names: Sequence[str], frames: Sequence[object]) -> frozenset[str]:
    """Returns the names that different frames share.

    Args:
        names: Of each entry of a data set.
        frames: What tells frames apart: entries of the same frame (data sets repeat some) are
            equal in it.
    """
    counts = Counter(name for name, _ in dict.fromkeys(zip(names, frames, strict=True)))
    return frozenset(name for name, count in counts.items() if count > 1)
