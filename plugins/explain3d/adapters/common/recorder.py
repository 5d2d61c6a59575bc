"""What happens to explanations: files, pictures, resuming, progress."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from ...core.checks import require_flag, require_text, require_whole
from ...core.errors import InputError, ResultFileError
from ...core.results import AsyncWriter, ResultStore, file_stem
from ...core.structures import Detections, Explanation
from .outputs import picture_options

#: Two runs of one frame may round differently, in other batches or on another device.
_SAME = 1e-3


@dataclass
class Counts:
    """How far a run has come.

    Attributes:
        frames: Frames that are done, those taken from files included.
        detections: Detections explained in them.
        resumed: Frames taken from files.
        failed: Frames that could not be explained.
        started: Time at which the run started, seconds.
    """

    frames: int = 0
    detections: int = 0
    resumed: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """Returns one line for the log."""
        seconds = (time.monotonic() - self.started) / max(self.frames, 1)
        extra = f', {self.resumed} frames from files' if self.resumed else ''
        extra += f', {self.failed} failed' if self.failed else ''
        return (
            f'{self.frames} frames, {self.detections} detections{extra} ({seconds:.2f} s a frame)'
        )


class Recorder:
    """Keeps the explanations of a run.

    Args:
        settings: The run's settings; results with others are not resumed from.
        dir: Folder of the results, one ``{frame}.npz`` a frame; None: nothing is written.
        save: Whether to write result files.
        pictures: Which pictures to draw into ``{dir}/pictures``: False for none, True for the
            contact sheet, a list of kinds, or arguments of ``visualization.render_frame``.
        resume: Whether to take frames whose file is there from it.
        interval: Frames from one line of the log to the next.
        background: Whether to write from a thread of its own; ``close`` has to be called then.
        logger: The host's logger, default the one called ``explain3d``.

    Raises:
        ResultFileError: If the folder cannot be written to.
        UnknownNameError: If a kind of picture, a style or another option of pictures is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """

    counts_type = Counts
    #: Options that pictures have, arguments of what draws them.
    picture_keys: ClassVar[tuple[str, ...]] = (
        'kinds', 'target', 'max_objects', 'style', 'suffix', 'dpi',
    )  # fmt: skip

    def __init__(
        self,
        settings: Mapping[str, Any],
        dir: str | os.PathLike | None = None,  # noqa: A002 - a configuration's key
        save: bool = True,
        pictures: bool | list[str] | Mapping[str, Any] = False,
        resume: bool = True,
        interval: int = 10,
        background: bool = True,
        logger: logging.Logger | None = None,
    ) -> None:
        self.logger = logger or logging.getLogger('explain3d')
        self.counts = self.counts_type()
        self._sources: dict[str, str | None] = {}
        self.interval = require_whole('interval', interval)
        self.resume = require_flag('resume', resume)
        require_flag('save', save)
        self.folder = None if dir is None else Path(require_text('dir', dir, 'work_dirs/results'))
        pictures = picture_options(pictures, type(self))
        self.pictures = None if self.folder is None else pictures
        self.store = self.writer = None
        if self.folder is not None:
            require_writable(self.folder)
            if save:
                self.store = ResultStore(self.folder, settings, on_mismatch='recompute')
                self.writer = AsyncWriter(self.store) if background else None

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """The kinds of pictures that there are."""
        from ...visualization.render import KINDS

        return KINDS

    def claim(self, frame_id: str, source: str | None) -> None:
        """Makes sure that no two files' frames share a name, one overwriting the other.

        Raises:
            InputError: If a frame of another file had that name in this run.
        """
        first = self._sources.setdefault(frame_id, source)
        if first != source:
            raise InputError(
                f'Two frames are called {frame_id!r}: {first} and {source}. Expected a name for '
                "each: set frame_id='sample_idx', or another entry of the meta information."
            )

    def stored(self, plan: Explanation) -> Explanation | None:
        """Returns the frame's explanation from its file, if that is what would be computed.

        Args:
            plan: The frame's points and the detections to be explained.
        """
        if not self.resume or self.store is None or not self.store.has(plan.frame_id):
            return None
        found = self.store.load(plan.frame_id)
        same = _same(found.points, plan.points) and _same_detections(
            found.detections, plan.detections
        )
        if same:
            self._draw(found, only_missing=True)
            self.counts.resumed += 1
            self._count(found)
            return found
        self.logger.warning(
            f'Frame {plan.frame_id!r} has a result with other points or detections in '
            f'{self.folder}: it is computed again.'
        )
        return None

    def add(self, explanation: Explanation, image: str | None = None) -> None:
        """Draws and writes a new explanation.

        Args:
            explanation: On the CPU.
            image: Path of the frame's camera picture, if it has one.
        """
        self._draw(explanation, image)
        if self.store is not None:
            (self.writer or self.store).save(explanation)
        self._count(explanation)

    def fail(self, frame_id: str, error: Exception) -> None:
        """Logs and counts a frame that could not be explained."""
        self.counts.failed += 1
        self.logger.error(f'Frame {frame_id!r} is not explained: {error}')

    def close(self) -> None:
        """Waits until everything is on the disk."""
        if self.writer is not None:
            writer, self.writer = self.writer, None
            writer.close()

    def _count(self, explanation: Explanation) -> None:
        self.counts.frames += 1
        self.counts.detections += len(explanation.detections)
        if self.counts.frames % self.interval == 0:
            self.logger.info(f'Explained so far: {self.counts.text()}')

    def _draw(
        self, explanation: Explanation, image: str | None = None, only_missing: bool = False
    ) -> None:
        if self.pictures is None:
            return
        folder = self.folder / 'pictures'
        if only_missing and any(folder.glob(f'{file_stem(explanation.frame_id)}_*')):
            return
        from ...visualization.render import render_frame

        render_frame(explanation, folder, image=image, **self.pictures)


def require_writable(folder: Path) -> None:
    """Makes a folder and finds out whether files can be written to it.

    Raises:
        ResultFileError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResultFileError(
            f'Cannot write to the output folder {folder}: {error.strerror or error}. Expected a '
            'writable folder: choose another one (outputs.dir, or --out-dir of tools/test.py).'
        ) from error


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.cpu().to(a.dtype))


def _same_detections(a: Detections, b: Detections) -> bool:
    return (
        _same(a.labels, b.labels)
        and a.boxes.shape == b.boxes.shape
        and torch.allclose(a.boxes, b.boxes.cpu(), atol=_SAME)
        and torch.allclose(a.scores, b.scores.cpu(), atol=_SAME)
    )
