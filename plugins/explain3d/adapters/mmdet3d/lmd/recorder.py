"""What happens to decompositions: files, pictures, resuming, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from ....lmd.frame import FrameDecomposition
from ...common.recorder import Counts, Recorder
from ..frames import REMEDY
from .batch import BatchFrame


class FrameCounts(Counts):
    """How far a run has come."""

    def text(self) -> str:
        """Returns one line for the log."""
        seconds = (time.monotonic() - self.started) / max(self.frames, 1)
        return f'{self.frames} frames{self._extra()} ({seconds:.2f} s a frame)'


class DecompositionRecorder(Recorder):
    """Keeps the decompositions of a run; arguments as ``Recorder``.

    Attributes:
        shares: Sums over frames of each layer's shares, and how many frames went in.
    """

    counts_type = FrameCounts
    done = 'Decomposed'
    picture_keys = ('kinds', 'output', 'style', 'suffix', 'dpi')

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, logger=MMLogger.get_current_instance(), remedy=REMEDY, **kwargs)
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

    def resumed(self, found: FrameDecomposition, frame: BatchFrame, updated: bool = False) -> None:
        """Counts a frame that was taken from its file; draws what is missing.

        Args:
            found: The decomposition with the annotation as it is today.
            frame: The frame.
            updated: Whether its file has another annotation: it is replaced there, and pictures
                are drawn anew.
        """
        if updated:
            self._replace(found)
        images = frame.images() if self.pictures is not None else {}
        self._draw_frame(found, images, only_missing=not updated)
        self.counts.resumed += 1
        self._note(found)

    def add(self, found: FrameDecomposition, images: Mapping[str, np.ndarray]) -> None:
        """Draws and writes a new decomposition."""
        self._save(found)
        self._draw_frame(found, images)
        self._note(found)

    def _note(self, found: FrameDecomposition) -> None:
        self.names = found.names
        for layer, row in found.shares.items():
            total, count = self.shares.get(layer, (torch.zeros_like(row), 0))
            if row.isfinite().all():
                self.shares[layer] = (total + row, count + 1)
        if found.ground_truth is not None:
            self.counts.annotated += 1
            self.counts.objects += int(found.ground_truth.any())
        self._progress()

    def _draw_frame(
        self,
        found: FrameDecomposition,
        images: Mapping[str, np.ndarray],
        only_missing: bool = False,
    ) -> None:
        if self.pictures is None:
            return
        from ....visualization.lmd_render import render_decomposition

        folder = self.folder / 'pictures'
        render_decomposition(
            found, folder, images=images, only_missing=only_missing, **self.pictures
        )
