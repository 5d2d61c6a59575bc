"""Standing in for a model's own method while it is tested, and letting go of it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ...core.checks import require_choice
from ...core.errors import NotApplicableError
from .outputs import ON_ERROR
from .recorder import Recorder
from .unchanged import Unchanged, weights_of
from .weights import weights_digest


class ModelAttachment:
    """Shadows methods of one model on the instance; the base of what explains on the way out.

    In training mode nothing happens. A subclass says by ``_shadows`` what stands in for what, and
    runs its own step through ``_guarded``.

    Args:
        model: The model, without wrappers.
        start: Makes, at the first prediction, what works on frames and what keeps the results.
        on_error: ``'raise'``, or ``'skip'``: log a frame that fails, and go on.
        once: Whether an error ends the attachment, as it ends a test run. If not, the model may be
            trained on in between: with other weights it is started anew.

    Attributes:
        worker: What works on frames, once there was one.
        recorder: What keeps the results, likewise.
    """

    #: The method of the host that is called first; its presence on the instance tells the state.
    method: str
    #: What may be attached once only, and the remedy, for the message.
    once_only: str

    def __init__(
        self,
        model: nn.Module,
        start: Callable[[], tuple[Any, Recorder]],
        on_error: str = 'raise',
        once: bool = True,
    ) -> None:
        require_choice('on_error', on_error, ON_ERROR)
        self.model, self.on_error, self.once = model, on_error, once
        self.worker: Any = None
        self.recorder: Recorder | None = None
        self._start = start
        self._weights = Unchanged(())
        self._host: Any = None

    def attach(self) -> None:
        """Begins.

        Raises:
            NotApplicableError: If the model is attached to already.
        """
        if self.method in vars(self.model):
            raise NotApplicableError(
                f'{type(self.model).__name__} has been attached to already: expected '
                f'{self.once_only}'
            )
        self._host = getattr(self.model, self.method)
        vars(self.model).update(self._shadows())

    def detach(self) -> None:
        """Ends, and waits until the results are on the disk."""
        for name in self._shadows():
            vars(self.model).pop(name, None)
        if self.recorder is not None:
            self.recorder.close()

    def __enter__(self) -> ModelAttachment:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _shadows(self) -> Mapping[str, Callable]:
        """Returns what stands in for the model's methods, by their names."""
        raise NotImplementedError

    def _guarded(self, step: Callable, *args: Any, **kwargs: Any) -> Any:
        """Runs the host's method in training mode, and else ``step``; an error may end it all."""
        if self.model.training:
            return self._host(*args, **kwargs)
        try:
            if self.worker is not None and not self.once:
                self._end_of_weights()
            if self.worker is None:
                self.worker, self.recorder = self._start()
                self._weights = Unchanged(weights_of(self.model))
            return step(*args, **kwargs)
        except BaseException:
            if self.once:
                self.detach()  # What was computed before is on the disk when the run ends.
            raise

    def _end_of_weights(self) -> None:
        """Ends what works with weights that the model has no more: validation while it trains."""
        if self._weights.holds_for(weights_of(self.model)):
            return
        if self.worker.settings['model'] == weights_digest(self.model):
            self._weights = Unchanged(weights_of(self.model))
            return
        self.recorder.close()
        self.worker = self.recorder = None
