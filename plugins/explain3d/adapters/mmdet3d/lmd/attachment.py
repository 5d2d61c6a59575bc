"""Attaching to a model: every frame that it predicts on is decomposed in the same pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ....core.errors import NotApplicableError
from .batch import BatchFrame
from .decomposer import FrameDecomposer
from .recorder import DecompositionRecorder

#: Name of the decomposition on a data sample, and in the dict that metrics get.
FIELD = 'decomposition'


class DecompositionAttachment:
    """Shadows one model's ``test_step``: the host's own runs, once, within a decomposition.

    The decomposition is on each data sample, as ``decomposition``, when ``test_step`` returns.
    What the host predicts is its own, bit for bit. In training mode nothing happens.

    Args:
        model: The model, without wrappers.
        start: Makes, at the first batch, what decomposes frames and what keeps the results.
        on_error: ``'raise'``, or ``'skip'``: log frames that cannot be decomposed.
        once: Whether an error ends the attachment, as it ends a test run.
    """

    def __init__(
        self,
        model: nn.Module,
        start: Callable[[], tuple[FrameDecomposer, DecompositionRecorder]],
        on_error: str = 'raise',
        once: bool = True,
    ) -> None:
        if on_error not in ('raise', 'skip'):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' or 'skip'.")
        self.model, self.on_error, self.once = model, on_error, once
        self.decomposer: FrameDecomposer | None = None
        self.recorder: DecompositionRecorder | None = None
        self._start = start
        self._test_step: Any = None

    def attach(self) -> None:
        """Starts decomposing.

        Raises:
            NotApplicableError: If the model is decomposed already.
        """
        if 'test_step' in vars(self.model):
            raise NotApplicableError(
                f'{type(self.model).__name__} has been attached to already: expected one '
                'decomposition at a time. Use one LMDHook or DecomposedModel.'
            )
        self._test_step = self.model.test_step
        vars(self.model)['test_step'] = self._decomposed_test_step

    def detach(self) -> None:
        """Stops decomposing, and waits until the results are on the disk."""
        vars(self.model).pop('test_step', None)
        if self.recorder is not None:
            self.recorder.close()

    def __enter__(self) -> DecompositionAttachment:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _decomposed_test_step(self, data: Any) -> list:
        if self.model.training:
            return self._test_step(data)
        try:
            return self._predict_and_decompose(data)
        except BaseException:
            if self.once:
                self.detach()  # What was computed before is on the disk when the run ends.
            raise

    def _predict_and_decompose(self, data: Any) -> list:
        if self.decomposer is None:
            self.decomposer, self.recorder = self._start()
        frames = self.decomposer.frames(data)
        for frame in frames:
            self.recorder.claim(frame.frame_id, frame.source)
        stored = [self.recorder.stored(frame) for frame in frames]
        if all(found is not None for found in stored):
            samples = self._test_step(data)
            for found, frame in zip(stored, frames, strict=True):
                self.recorder.resumed(found, frame)
            return _with_field(samples, stored)
        try:
            samples, results = self.decomposer.decompose(self._test_step, data, frames)
            for found, frame in zip(results, frames, strict=True):
                self.recorder.add(found, frame.images() if self.recorder.pictures else {})
        except Exception as error:
            self._failed(frames, error)
            # The host's own prediction does not depend on what became of the decomposition.
            return self._test_step(data)
        return _with_field(samples, results)

    def _failed(self, frames: Sequence[BatchFrame], error: Exception) -> None:
        for frame in frames:
            self.recorder.fail(frame.frame_id, error)
        if self.on_error == 'raise':
            raise error


def _with_field(samples: list, results: Sequence[Any]) -> list:
    for sample, found in zip(samples, results, strict=True):
        setattr(sample, FIELD, found)
    return samples
