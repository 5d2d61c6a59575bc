"""What happens to explanations: files, pictures, resuming, progress."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.checks import require_flag, require_text, require_whole
from ...core.errors import ResultFileError
from ...core.results import AsyncWriter, ResultStore
from ...core.structures import Detections, Explanation
from .frames import digest_of
from .outputs import picture_options
from .run_folder import FrameClaims, claim_folder, same_name

#: Two runs of one frame may round differently, in other batches or on another device.
_SAME = 1e-3


@dataclass
class Counts:
    """How far a run has come.

    Attributes:
        frames: Frames that are done, those taken from files included.
        detections: Detections explained in them.
        resumed: Frames taken from files.
        updated: Those of them whose annotation or class names were others in the file.
        failed: Frames that could not be explained.
        annotated: Frames whose annotation is known, also as empty.
        objects: Annotated objects in them.
        started: Time at which the run started, seconds.
    """

    #: What is summed over processes.
    summed: ClassVar[tuple[str, ...]] = (
        'frames', 'detections', 'resumed', 'updated', 'failed', 'annotated', 'objects',
    )  # fmt: skip

    frames: int = 0
    detections: int = 0
    resumed: int = 0
    updated: int = 0
    failed: int = 0
    annotated: int = 0
    objects: int = 0
    started: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        """Returns one line for the log."""
        seconds = (time.monotonic() - self.started) / max(self.frames, 1)
        return (
            f'{self.frames} frames, {self.detections} detections'
            f'{self._extra(" frames")} ({seconds:.2f} s a frame)'
        )

    def _extra(self, frames: str = '') -> str:
        extra = f', {self.resumed}{frames} from files' if self.resumed else ''
        extra += f', {self.updated} of them with a new annotation' if self.updated else ''
        return extra + (f', {self.failed} failed' if self.failed else '')

    @property
    def unlabelled(self) -> bool:
        """Whether the annotation of all frames is known, and not one has an object."""
        return 0 < self.frames == self.annotated and not self.objects


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
        data: What kind of data the frames are of, as plain data; see ``run_folder.claim_folder``.
        remedy: How frames get other names, for the message about two of one name.

    Raises:
        ResultFileError: If the folder cannot be written to.
        SettingsMismatchError: If the folder belongs to another run.
        UnknownNameError: If a kind of picture, a style or another option of pictures is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """

    counts_type = Counts
    #: What was done to the frames, for the log.
    done: ClassVar[str] = 'Explained'
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
        data: Mapping[str, Any] | None = None,
        remedy: str = 'Give the frames names of their own.',
    ) -> None:
        self.logger = logger or logging.getLogger('explain3d')
        self.counts = self.counts_type()
        self._remedy = remedy
        self.interval = require_whole('interval', interval)
        self.resume = require_flag('resume', resume)
        require_flag('save', save)
        self.folder = None if dir is None else Path(require_text('dir', dir, 'work_dirs/results'))
        pictures = picture_options(pictures, type(self))
        self.pictures = None if self.folder is None else pictures
        self.store = self.writer = None
        if self.folder is not None:
            require_writable(self.folder)
            claim_folder(self.folder, settings, data)
            if save:
                self.store = ResultStore(self.folder, settings, on_mismatch='recompute')
                self.writer = AsyncWriter(self.store) if background else None
        self._claims = FrameClaims(self.folder)

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """The kinds of pictures that there are."""
        from ...visualization.render import KINDS

        return KINDS

    def claim(self, frame_id: str, source: str | None) -> None:
        """Makes sure that no two frames of a run share a name, one overwriting the other.

        Args:
            frame_id: The frame's name.
            source: What tells the frame from others: its file, or a digest of its content. None:
                it is told from others by its points, once they are on the CPU.

        Raises:
            InputError: If another frame has that name in this run.
        """
        if source is None:
            return
        first = self._claims.claim(frame_id, source)
        if first != source:
            raise same_name(frame_id, first, source, self._remedy)

    def stored(
        self, plan: Explanation, image: str | None = None, unsourced: bool = False
    ) -> Explanation | None:
        """Returns the frame's explanation from its file, if that is what would be computed.

        The maps depend on the settings, the points and the detections. The annotation and the
        names of the classes are always today's: where the file has others they are replaced in
        it, and pictures are drawn anew.

        Args:
            plan: The frame's points, annotation and the detections to be explained.
            image: As in ``add``.
            unsourced: As in ``add``.
        """
        if not self.resume or self.store is None or not self.store.has(plan.frame_id):
            return None
        found = self.store.load(plan.frame_id)
        same = _same(found.points, plan.points) and _same_detections(
            found.detections, plan.detections
        )
        if not same:
            self.logger.warning(
                f'Frame {plan.frame_id!r} has a result with other points or detections in '
                f'{self.folder}: it is computed again.'
            )
            return None
        self._claim_content(found, unsourced)
        today = with_annotation(found, plan)
        if today is found:
            self._draw(found, image, only_missing=True)
        else:
            self._replace(today)
            self._draw(today, image)
        self.counts.resumed += 1
        self._count(today)
        return today

    def add(
        self, explanation: Explanation, image: str | None = None, unsourced: bool = False
    ) -> None:
        """Draws and writes a new explanation.

        Args:
            explanation: On the CPU.
            image: Path of the frame's camera picture, if it has one.
            unsourced: Whether nothing but its points tells the frame from others.

        Raises:
            InputError: If another frame has its name in this run; nothing is written.
        """
        self._claim_content(explanation, unsourced)
        self._save(explanation)  # First: a picture that cannot be drawn does not lose the maps.
        self._draw(explanation, image)
        self._count(explanation)

    def _claim_content(self, explanation: Explanation, unsourced: bool) -> None:
        if unsourced and self.folder is not None:  # Else none can overwrite another.
            digest = digest_of({'points': explanation.points})
            self.claim(explanation.frame_id, f'points of digest {digest}')

    def _replace(self, result: Any) -> None:
        """Writes a result whose annotation or class names were others in its file."""
        if not self.counts.updated:
            self.logger.warning(
                f'The annotation or the class names of frame {result.frame_id!r} are not those '
                f'of its file in {self.folder}: they are replaced there, as in all such frames.'
            )
        self.counts.updated += 1
        self._save(result)

    def _save(self, result: Any) -> None:
        if self.store is not None:
            (self.writer or self.store).save(result)

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
        self.counts.detections += len(explanation.detections)
        if explanation.ground_truth is not None:
            self.counts.annotated += 1
            self.counts.objects += len(explanation.ground_truth)
        self._progress()

    def _progress(self) -> None:
        """Counts a frame, and tells the log how far the run has come."""
        self.counts.frames += 1
        if self.counts.frames % self.interval == 0:
            self.logger.info(f'{self.done} so far: {self.counts.text()}')

    def _draw(
        self, explanation: Explanation, image: str | None = None, only_missing: bool = False
    ) -> None:
        if self.pictures is None:
            return
        from ...visualization.render import render_frame

        folder = self.folder / 'pictures'
        render_frame(explanation, folder, image=image, only_missing=only_missing, **self.pictures)


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


def with_annotation(found: Explanation, plan: Explanation) -> Explanation:
    """Returns an explanation with the annotation and the class names of the frame as it is today.

    Args:
        found: From a file.
        plan: Of the same points and detections.

    Returns:
        ``found`` itself where nothing differs.
    """
    names, truth = plan.detections.class_names, plan.ground_truth
    if found.detections.class_names == names and _same_truth(found.ground_truth, truth):
        return found
    return replace(
        found,
        detections=replace(found.detections, class_names=names),
        ground_truth=None if truth is None else truth.to('cpu'),
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b.cpu().to(a.dtype))


def _same_truth(a: Detections | None, b: Detections | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.class_names == b.class_names and _same(a.boxes, b.boxes) and _same(a.labels, b.labels)


def _same_detections(a: Detections, b: Detections) -> bool:
    return (
        _same(a.labels, b.labels)
        and a.boxes.shape == b.boxes.shape
        and torch.allclose(a.boxes, b.boxes.cpu(), atol=_SAME)
        and torch.allclose(a.scores, b.scores.cpu(), atol=_SAME)
    )
