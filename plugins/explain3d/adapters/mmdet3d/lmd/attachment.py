"""Attaching to a model: every frame that it predicts on is decomposed in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...common.shadow import ModelAttachment
from .batch import BatchFrame

#: Name of the decomposition on a data sample, and in the dict that metrics get.
FIELD = 'decomposition'


class DecompositionAttachment(ModelAttachment):
    """Shadows one model's ``test_step``: the host's own runs, once, within a decomposition.

    The decomposition is on each data sample, as ``decomposition``, when ``test_step`` returns.
    What the host predicts is its own, bit for bit. In training mode nothing happens.

    Arguments as in ``ModelAttachment``; its worker is a ``FrameDecomposer``.
    """

    method = 'test_step'
    once_only = 'one decomposition at a time. Use one LMDHook or DecomposedModel.'
    #: Name of the result on a data sample.
    field = FIELD

    def _shadows(self) -> dict[str, Callable]:
        return {'test_step': self._decomposed_test_step}

    def _decomposed_test_step(self, data: Any) -> list:
        return self._guarded(self._predict_and_decompose, data)

    def _predict_and_decompose(self, data: Any) -> list:
        frames = self.worker.frames(data)
        for frame in frames:
            if not frame.repeat:
                self.recorder.claim(frame.frame_id, frame.identity())
        stored = [self.recorder.stored(frame) for frame in frames]
        today = [self._as_today(*pair) for pair in zip(stored, frames, strict=True)]
        if all(found is not None for found in today):
            samples = self._host(data)
            for found, frame, old in zip(today, frames, stored, strict=True):
                self.recorder.resumed(found, frame, updated=found is not old)
            return self._with_field(samples, today)
        try:
            samples, results = self.worker.decompose(self._host, data, frames)
            for found, frame in zip(results, frames, strict=True):
                self.recorder.add(found, frame.images() if self.recorder.pictures else {})
        except Exception as error:
            self._failed(frames, error)
            # The host's own prediction does not depend on what became of the decomposition.
            return self._host(data)
        return self._with_field(samples, results)

    def _as_today(self, found: Any, frame: BatchFrame) -> Any:
        """Returns what a file holds with today's annotation; None if it has to be computed."""
        if found is None:
            return None
        result = self.worker.as_today(found, frame)
        if result is None:
            self.recorder.logger.warning(
                f'Frame {frame.frame_id!r} has a result that was made with another annotation in '
                f'{self.recorder.folder}: it is computed again.'
            )
        return result

    def _failed(self, frames: Sequence[BatchFrame], error: Exception) -> None:
        for frame in frames:
            self.recorder.fail(frame.frame_id, error)
        if self.on_error == 'raise':
            raise error

    def _with_field(self, samples: list, results: Sequence[Any]) -> list:
        for sample, found in zip(samples, results, strict=True):
            setattr(sample, self.field, found)
        return samples
