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
from .frame_explainer import Frame, on_cpu
from .shadow import ModelAttachment

#: Name of the explanation on a data sample, and in the dict that metrics get.
FIELD = 'explanation'


class Attachment(ModelAttachment):
    """Shadows one detector's ``predict``: the host's own is called first, then explained.

    The explanation is on each data sample, as ``explanation``, when ``predict`` returns, so that
    metrics get it. What the host predicts is not touched. In training mode nothing happens.

    Arguments as in ``ModelAttachment``; its worker is a ``FrameExplainer``. With
    ``on_error='skip'`` a frame that cannot be explained gets an explanation without detections,
    which is not written.
    """

    method = 'predict'
    once_only = (
        'one explainer at a time. Use one ExplainerHook or ExplainedModel, and run the test once '
        'for each method.'
    )

    def _shadows(self) -> dict[str, Callable]:
        return {'predict': self._explained_predict, 'aug_test': _refuse_augmentation}

    def _explained_predict(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        return self._guarded(self._predict_and_explain, inputs, samples, **kwargs)

    def _predict_and_explain(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        # Tensors made in inference mode could not be part of a graph.
        with torch.inference_mode(False):
            frames = self.worker.frames(inputs, samples)
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
            return self._host(inputs, samples, **kwargs)
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
            plan = self.worker.select(frame, sample)
            explanation = self.recorder.stored(plan)
            if explanation is None:
                explanation = self.worker.explain(self._host, frame, sample, plan)
                self.recorder.add(explanation, _picture_of(sample))
        setattr(sample, FIELD, explanation)

    def _nothing(self, frame: Frame, error: Exception) -> Explanation:
        explanation = self.worker.nothing(frame)
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
