"""Attaching to a detector: every frame that it predicts is explained on the way out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.structures import Explanation
from ..common.attachment import ExplainingAttachment
from ..common.frames import Frame
from .black_box import PcdetBlackBox, black_box_of
from .frames import ground_truth_of


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
            lambda empty: self._predicted_apart(frames, empty),
            outputs=lambda result: result[0],
        )

    def _predicted_apart(
        self, frames: Sequence[Frame], empty: Sequence[bool]
    ) -> tuple[list[dict], dict[str, Any]]:
        """Returns predictions and recall counts of a batch, of frames that go through one by one.

        Args:
            frames: The frames.
            empty: For each whether it is without points: nothing is found there, and none of its
                annotated objects are recalled.
        """
        predicted, recalled = [], Counter()
        for frame, without_points in zip(frames, empty, strict=True):
            if without_points:
                none = frame.points.new_zeros(0, 7)
                labels = none[:, 0].long()
                found = dict(pred_boxes=none, pred_scores=none[:, 0], pred_labels=labels)
                truth = ground_truth_of(frame.inputs, ())
                counts = {} if truth is None else {'gt': len(truth)}
            else:
                inputs = frame.inputs.items()
                one = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs}
                (found,), counts = self._host(one)
            predicted.append(found)
            recalled.update(counts)
        return predicted, dict(recalled)

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
