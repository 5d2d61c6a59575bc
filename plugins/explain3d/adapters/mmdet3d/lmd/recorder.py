"""What happens to decompositions: files, pictures, resuming, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from ....core.results import file_stem
from ....lmd.frame import FrameDecomposition
from ...common.recorder import Counts, Recorder
from .batch import BatchFrame


class FrameCounts(Counts):
    """How far a run has come."""

    def text(self) -> str:
        """Returns one line for the log."""
        seconds = (time.monotonic() - self.started) / max(self.frames, 1)
        extra = f', {self.resumed} from files' if self.resumed else ''
        extra += f', {self.failed} failed' if self.failed else ''
        return f'{self.frames} frames{extra} ({seconds:.2f} s a frame)'


class DecompositionRecorder(Recorder):
    """Keeps the decompositions of a run; arguments as ``Recorder``.

    Attributes:
        shares: Sums over frames of each layer's shares, and how many frames went in.
    """

    counts_type = FrameCounts
    picture_keys = ('kinds', 'output', 'style', 'suffix', 'dpi')

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, logger=MMLogger.get_current_instance(), **kwargs)
        self.shares: dict[str, tuple[Tensor, int]] = {}
        self.names: tuple[str, ...] = ()

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """The kinds of pictures that there are."""
        from ....visualization.lmd_render import LMD_KINDS

        return LMD_KINDS

    def stored(self, frame: BatchFrame) -> FrameDecomposition | None:
        """Returns the frame's decomposition from its file, if that is what would be computed."""
        if not self.resume or self.store is None or not self.store.has(frame.frame_id):
            return None
        found = self.store.load(frame.frame_id)
        if found.info.get('inputs') == frame.digest():
            return found
        self.logger.warning(
            f'Frame {frame.frame_id!r} has a result with other inputs in {self.folder}: it is '
            'computed again.'
        )
        return None

    def resumed(self, found: FrameDecomposition, frame: BatchFrame) -> None:
        """Counts a frame that was taken from its file; draws what is missing."""
        pictures = None if self.folder is None else self.folder / 'pictures'
        stem = file_stem(found.frame_id)
        if self.pictures is not None and not any(pictures.glob(f'{stem}_*')):
            self._draw_frame(found, frame.images())
        self.counts.resumed += 1
        self._note(found)

    def add(self, found: FrameDecomposition, images: Mapping[str, np.ndarray]) -> None:
        """Draws and writes a new decomposition."""
        self._draw_frame(found, images)
        if self.store is not None:
            (self.writer or self.store).save(found)
        self._note(found)

    def _note(self, found: FrameDecomposition) -> None:
        self.names = found.names
        for layer, row in found.shares.items():
            total, count = self.shares.get(layer, (torch.zeros_like(row), 0))
            if row.isfinite().all():
                self.shares[layer] = (total + row, count + 1)
        self.counts.frames += 1
        if self.counts.frames % self.interval == 0:
            self.logger.info(f'Decomposed so far: {self.counts.text()}')

    def _draw_frame(self, found: FrameDecomposition, images: Mapping[str, np.ndarray]) -> None:
        if self.pictures is None:
            return
        from ....visualization.lmd_render import render_decomposition

        render_decomposition(found, self.folder / 'pictures', images=images, **self.pictures)
