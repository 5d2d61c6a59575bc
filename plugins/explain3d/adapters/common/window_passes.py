"""Passes of versions of a frame, of which the detector computes windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .sparse_memory import NoVersionError, SparseMemory
from .tail import Tail
from .windows import Spans, View, Window

#: Gives a head's raw outputs for a batch of clouds, none of them empty.
Run = Callable[[Sequence[Tensor]], Any]


class WindowPasses:
    """What a detector knows of a frame, and its passes of versions of it.

    Args:
        model: The detector.
        encoder: The module of it that gives the bird's-eye-view map.

    Attributes:
        memory: Of the sparse encoder.
        tail: Of the dense part.
        view: How the detector looks at its input; None where that is not bounded.
        base: The frame.
        base_map: Its bird's-eye-view map.
    """

    def __init__(self, model: nn.Module, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.memory, self.tail = SparseMemory(model), Tail(None)
        self.view: View | None = None
        self.base: Tensor | None = None
        self.base_map: Tensor | None = None

    @property
    def remembers(self) -> bool:
        """Whether the encoder computes of a version of the frame what differs."""
        return self.view is not None and self.memory.usable(self.view.bev.shape)

    def has_versions(self, window: Window) -> bool:
        """Whether it computes of clouds what differs, which has to be a part of the frame."""
        return self.remembers and window.changed is not None

    def cost(self, window: Window) -> float:
        """Returns a pass's share of a whole one, beside what does not grow with its area."""
        return sum(window.parts(self.view, self.remembers)) / 2

    def of_versions(self, run: Run, clouds: Sequence[Tensor], window: Window) -> Any | None:
        """Returns the raw outputs of versions of the frame; None if these are not versions."""
        # A voxel more to each side: hosts round otherwise.
        crops = self._cropped(clouds, tuple((a - 1, b + 1) for a, b in window.changed))
        if crops is None:
            return None
        try:
            with self.memory.running(window.changed, window.window):
                return self._narrow(run, crops, window)
        except NoVersionError:
            return None

    def of_crops(self, run: Run, clouds: Sequence[Tensor], window: Window) -> Any | None:
        """Returns the raw outputs where the crop gives the patch; None as in ``_cropped``."""
        crops = self._cropped(clouds, window.crop)
        if crops is None:
            return None
        (y0, y1), (x0, x1) = window.window
        (py0, py1), (px0, px1) = window.patch

        def paste(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            frame = self.base_map[:, :, y0:y1, x0:x1].repeat(len(output), 1, 1, 1)
            frame[:, :, py0 - y0 : py1 - y0, px0 - x0 : px1 - x0] = output[:, :, py0:py1, px0:px1]
            return frame

        handle = self.encoder.register_forward_hook(paste)
        try:
            return self._narrow(run, crops, window)
        finally:
            handle.remove()

    def _narrow(self, run: Run, clouds: Sequence[Tensor], window: Window) -> Any:
        with self.tail.narrowing(window, self.view.bev.stride):
            return run(clouds)

    def _cropped(self, clouds: Sequence[Tensor], spans: Spans) -> list[Tensor] | None:
        """Returns what of each cloud lies in voxels; None if nothing can be told apart.

        A cloud of which nothing is left gets a point of the frame from outside of them.
        """
        crops = [cloud[self._holds(cloud, spans)] for cloud in clouds]
        if all(len(crop) for crop in crops):
            return crops
        unseen = self.base[~self._holds(self.base, spans)][:1]
        return [crop if len(crop) else unseen for crop in crops] if len(unseen) else None

    def _holds(self, cloud: Tensor, spans: Spans) -> Tensor:
        keep = torch.ones(len(cloud), dtype=torch.bool, device=cloud.device)
        for axis, (first, last) in enumerate(spans):
            column = 1 - axis
            low, size = self.view.range_min[column], self.view.voxel_size[column]
            cell = (cloud[:, column] - low) / size
            keep &= (cell >= first) & (cell < last)
        return keep
