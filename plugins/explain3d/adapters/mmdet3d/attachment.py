"""Attaching to a detector: every frame that it predicts is explained on the way out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseTTAModel
from torch import nn

from ...core.errors import InputError, NotApplicableError
from ...core.structures import Explanation
from .detector import unwrap
from .frame_explainer import Frame, FrameExplainer, on_cpu
from .recorder import Recorder

#: Name of the explanation on a data sample, and in the dict that metrics get.
FIELD = 'explanation'


class Attachment:
    """Shadows one detector's ``predict``: the host's own is called first, then explained.

    The explanation is on each data sample, as ``explanation``, when ``predict`` returns, so that
    metrics get it. What the host predicts is not touched. In training mode nothing happens.

    Args:
        model: The detector, without wrappers.
        start: Makes, at the first prediction, what explains frames and what keeps the results.
        on_error: ``'raise'``, or ``'skip'``: log a frame that cannot be explained and give it an
            explanation without detections, which is not written.
        once: Whether an error ends the attachment, as it ends a test run.
    """

    def __init__(
        self,
        model: nn.Module,
        start: Callable[[], tuple[FrameExplainer, Recorder]],
        on_error: str = 'raise',
        once: bool = True,
    ) -> None:
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' or 'skip'.")
        self.model, self.on_error, self.once = model, on_error, once
        self.frames: FrameExplainer | None = None
        self.recorder: Recorder | None = None
        self._start = start
        self._predict: Any = None

    def attach(self) -> None:
        """Starts explaining.

        Raises:
            NotApplicableError: If the detector is explained already.
        """
        if 'predict' in vars(self.model):
            raise NotApplicableError(
                f'{type(self.model).__name__} has been attached to already: expected one explainer '
                'at a time. Use one ExplainerHook or ExplainedModel, and run the test once for '
                'each method.'
            )
        self._predict = self.model.predict
        vars(self.model).update(predict=self._explained_predict, aug_test=_refuse_augmentation)

    def detach(self) -> None:
        """Stops explaining, and waits until the results are on the disk."""
        for name in ('predict', 'aug_test'):
            vars(self.model).pop(name, None)
        if self.recorder is not None:
            self.recorder.close()

    def __enter__(self) -> Attachment:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _explained_predict(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        if self.model.training:
            return self._predict(inputs, samples, **kwargs)
        try:
            return self._predict_and_explain(inputs, samples, **kwargs)
        except BaseException:
            if self.once:
                self.detach()  # What was computed before is on the disk when the run ends.
            raise

    def _predict_and_explain(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        if self.frames is None:
            self.frames, self.recorder = self._start()
        # Tensors made in inference mode could not be part of a graph.
        with torch.inference_mode(False):
            frames = self.frames.frames(inputs, samples)
        unsound = [self._try(frame, frame.check) for frame in frames]
        results = self._host_predict(inputs, samples, unsound, **kwargs)
        for frame, sample, error in zip(frames, results, unsound, strict=True):
            if error is None:
                error = self._try(frame, lambda f=frame, s=sample: self._explain(f, s))
            if error is not None:
                setattr(sample, FIELD, self._nothing(frame, error))
        return results

    def _host_predict(
        self, inputs: dict, samples: list, unsound: list[Exception | None], **kwargs: Any
    ) -> list:
        """Calls the host's own ``predict``; if it fails on an unsound frame, says which."""
        try:
            return self._predict(inputs, samples, **kwargs)
        except Exception as error:
            reasons = [str(reason) for reason in unsound if reason is not None]
            if not reasons:
                raise
            raise InputError(
                f'{reasons[0]} The detector itself fails on this frame '
                f"({type(error).__name__}: {error}), which on_error='skip' cannot help: expected "
                'a frame that it can predict. Leave the frame out of the data set.'
            ) from error

    def _try(self, frame: Frame, step: Callable[[], None]) -> Exception | None:
        """Runs a step of a frame; an error is logged, then raised or returned."""
        try:
            step()
        except Exception as error:
            self.recorder.fail(frame.frame_id, error)
            if self.on_error == 'raise':
                raise
            return error
        return None

    def _explain(self, frame: Frame, sample: Any) -> None:
        self.recorder.claim(frame.frame_id, frame.source)
        with torch.inference_mode(False):
            plan = self.frames.select(frame, sample)
            explanation = self.recorder.stored(plan)
            if explanation is None:
                explanation = self.frames.explain(self._predict, frame, sample, plan)
                self.recorder.add(explanation, _picture_of(sample))
        setattr(sample, FIELD, explanation)

    def _nothing(self, frame: Frame, error: Exception) -> Explanation:
        explanation = self.frames.nothing(frame)
        explanation.maps.info['error'] = str(error)
        return on_cpu(explanation)


def _picture_of(sample: Any) -> str | None:
    """Returns the path of the frame's camera picture, if the data set loads exactly one."""
    path = sample.metainfo.get('img_path')
    return path if isinstance(path, str) and os.path.isfile(path) else None


def attachable(model: nn.Module) -> nn.Module:
    """Returns the detector to attach to.

    Raises:
        NotApplicableError: If the model does test-time augmentation.
    """
    if isinstance(model, BaseTTAModel) or isinstance(getattr(model, 'module', None), BaseTTAModel):
        _refuse_augmentation()
    return unwrap(model)


def _refuse_augmentation(*_: Any, **__: Any) -> None:
    raise NotApplicableError(
        'Predictions of test-time augmentation are merged from several passes: expected one pass a '
        'frame. Leave out --tta, and flips and scales in the test pipeline.'
    )
