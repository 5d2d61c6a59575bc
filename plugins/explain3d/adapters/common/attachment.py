"""Explaining what a detector predicts, frame by frame, on the way out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...core.errors import Explain3DError, InputError
from ...core.structures import Explanation
from .first_pass import FirstPass
from .frame_explainer import on_cpu
from .frames import Frame
from .point_range import in_range, nothing_in_range
from .shadow import ModelAttachment


class ExplainingAttachment(ModelAttachment):
    """Calls the host's own pass first, then explains each of its frames.

    What the host predicts is not touched. In training mode nothing happens. With
    ``on_error='skip'`` a frame that cannot be explained gets an explanation without detections,
    which is not written; a frame without a point in the range, on which the host itself fails, gets
    a prediction without detections. Arguments as in ``ModelAttachment``; its worker is a
    ``FrameExplainer``.
    """

    @abstractmethod
    def _explain_frame(self, frame: Frame, output: Any, plan: Explanation) -> Explanation:
        """Returns ``plan`` with its maps; on the CPU."""

    @abstractmethod
    def _hand_over(self, output: Any, explanation: Explanation) -> None:
        """Passes on the explanation of a frame for which the host's own pass gave ``output``."""

    def _picture_of(self, output: Any) -> str | None:
        """Returns the path of the frame's camera picture, if the data set loads exactly one."""
        return None

    def _predict_and_explain(
        self,
        frames: Sequence[Frame],
        predict: Callable[[], Any],
        apart: Callable[[Sequence[bool]], Any],
        outputs: Callable[[Any], Sequence[Any]] = lambda result: result,
    ) -> Any:
        """Returns what ``predict`` gives, after each of its frames is explained.

        Args:
            frames: The B frames of the batch.
            predict: The host's own pass.
            apart: The host's own pass over each frame alone, given for each whether it is without
                points, for which it gives no detections.
            outputs: Takes from its result what it gave for each of the B frames.
        """
        unsound = [self._try(frame, frame.check) for frame in frames]
        with self.worker.recording() as recording:
            result = self._host_predict(predict, apart, frames, unsound)
        everything = zip(frames, outputs(result), unsound, strict=True)
        for number, (frame, output, error) in enumerate(everything):
            if error is None:
                first = partial(recording.frame, number, len(frames)) if recording else _nothing
                error = self._try(frame, partial(self._explain, frame, output, first))
            if error is not None:
                self._hand_over(output, self._nothing(frame, error))
        return result

    def _host_predict(
        self,
        predict: Callable[[], Any],
        apart: Callable[[Sequence[bool]], Any],
        frames: Sequence[Frame],
        unsound: list[Exception | None],
    ) -> Any:
        """Calls the host's own pass; if it fails on an unsound frame, says which.

        In a frame without a point in the range there is nothing to be found. With
        ``on_error='skip'`` that is its prediction, if the host itself fails on it.

        Args:
            predict: As in ``_predict_and_explain``, like ``apart`` and ``frames``.
            apart: See there.
            frames: See there.
            unsound: What is wrong with each frame; frames without points are entered.
        """
        try:
            return predict()
        except Exception as error:
            empty = [not in_range(frame, self.worker.point_range) for frame in frames]
            for index, frame in enumerate(frames):
                if empty[index] and unsound[index] is None:
                    unsound[index] = nothing_in_range(frame, self.worker.point_range)
                    self.recorder.fail(frame.frame_id, unsound[index])
            reasons = [str(reason) for reason in unsound if reason is not None]
            if not reasons:
                raise
            told = f'The detector itself fails on this frame ({type(error).__name__}: {error})'
            if self.on_error == 'skip' and len(reasons) == sum(empty):
                self.recorder.logger.warning(
                    f"{reasons[0]} {told}; with on_error='skip' it counts as a frame in which "
                    'nothing is found, in the metrics of the host as well.'
                )
                return apart(empty)
            raise InputError(
                f"{reasons[0]} {told}, which on_error='skip' cannot help: expected a frame that it "
                'can predict. Leave the frame out of the data set.'
            ) from error

    def _try(self, frame: Frame, step: Callable[[], None]) -> Exception | None:
        """Runs a step of a frame; an error is logged, then raised or returned."""
        try:
            step()
        except Exception as cause:
            error = self._reason(frame, cause)
            self.recorder.fail(frame.frame_id, error)
            if self.on_error == 'raise':
                raise error from (None if error is cause else cause)
            return error
        return None

    def _reason(self, frame: Frame, error: Exception) -> Exception:
        """Returns why a frame fails: what it lacks, where that is more than the host says."""
        if isinstance(error, Explain3DError) or in_range(frame, self.worker.point_range):
            return error
        return nothing_in_range(frame, self.worker.point_range)

    def _explain(
        self, frame: Frame, output: Any, first: Callable[[], tuple[FirstPass, ...] | None]
    ) -> None:
        if not frame.repeat:
            self.recorder.claim(frame.frame_id, frame.source)
        image, unsourced = self._picture_of(output), frame.unsourced
        with torch.inference_mode(False):
            plan = self.worker.select(frame, output)
            explanation = self.recorder.stored(plan, image, unsourced)
            if explanation is None:
                explanation = self._explain_frame(replace(frame, first=first()), output, plan)
                self.recorder.add(explanation, image, unsourced)
        self._hand_over(output, explanation)

    def _nothing(self, frame: Frame, error: Exception) -> Explanation:
        explanation = self.worker.nothing(frame)
        explanation.maps.info['error'] = str(error)
        return on_cpu(explanation)


def _nothing() -> None:
    """What there is of a frame where no notes were taken."""
