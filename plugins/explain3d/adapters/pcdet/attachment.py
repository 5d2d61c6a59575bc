"""Attaching to a detector: every frame that it predicts is explained on the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.structures import Explanation
from ..common.attachment import ExplainingAttachment
from ..common.frames import Frame
from .black_box import PcdetBlackBox, black_box_of


class Attachment(ExplainingAttachment):
    """Shadows one detector's ``forward``: the host's own is called first, then explained.

    What the host returns (boxes, recall counts) is its own, bit for bit; nothing is added to it.
    In training mode nothing happens.

    Arguments as in ``ModelAttachment``; its worker is a ``FrameExplainer``.

    Attributes:
        explained: Called with each explanation, those of frames that failed included.
    """

    method = 'forward'
    once_only = 'one explainer at a time. Run the test once for each method.'

    #: The detector for metrics, once there was a frame; in a tuple, as it may be None.
    _black_box: tuple[PcdetBlackBox | None] | None = None

    def __init__(
        self, *args: Any, explained: Callable[[Explanation], Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.explained = explained

    def _shadows(self) -> dict[str, Callable]:
        return {'forward': self._explained_forward}

    def _explained_forward(self, batch: dict, *args: Any, **kwargs: Any) -> Any:
        return self._guarded(self._explained_batch, batch, *args, **kwargs)

    def _explained_batch(self, batch: dict, *args: Any, **kwargs: Any) -> Any:
        # Tensors made in inference mode could not be part of a graph.
        with torch.inference_mode(False):
            frames = self.worker.frames(batch)
        return self._predict_and_explain(
            frames,
            lambda: self._host(batch, *args, **kwargs),
            outputs=lambda result: result[0],
        )

    def _explain_frame(
        self, frame: Frame, output: Mapping[str, Tensor], plan: Explanation
    ) -> Explanation:
        return self.worker.explain(self._host, frame, plan)

    def _hand_over(self, output: Mapping[str, Tensor], explanation: Explanation) -> None:
        if self._black_box is None:
            self._black_box = (black_box_of(self.model, self._host, self.worker.tracer.family),)
        (explanation.black_box,) = self._black_box
        if self.explained is not None:
            self.explained(explanation)
