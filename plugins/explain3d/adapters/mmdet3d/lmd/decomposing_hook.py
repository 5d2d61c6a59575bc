"""What the hooks that decompose a test run have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from ....core.checks import suggestion
from ....core.errors import UnknownNameError
from ...common.data_facts import DataFacts
from ...common.outputs import check_run, checked_outputs
from ..checkpoints import check_checkpoint
from ..frames import REMEDY
from ..run_hook import TestRunHook, facts_of_run
from .attachment import DecompositionAttachment
from .recorder import DecompositionRecorder


class DecomposingHook(TestRunHook):
    """Attaches a decomposer and a recorder of results to the model of a test run.

    Args:
        results: Arguments of the recorder; ``dir`` is ``{work_dir}/{folder}`` by default.
        resume: Whether frames whose result is there, made with the same settings, weights and
            inputs, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.
        settings: The decomposer's.

    Raises:
        UnknownNameError: If there is a setting of another name, or a word is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """

    #: Names of the decomposer's settings.
    known: ClassVar[tuple[str, ...]]
    #: Where results go by default.
    folder: ClassVar[str]
    attachment_type: ClassVar[type[DecompositionAttachment]] = DecompositionAttachment
    recorder_type: ClassVar[type[DecompositionRecorder]] = DecompositionRecorder

    def __init__(
        self,
        results: Mapping[str, Any] | None = None,
        resume: bool = True,
        on_error: str = 'raise',
        interval: int = 10,
        check_checkpoint: bool = True,
        **settings: Any,
    ) -> None:
        unknown = [name for name in settings if name not in self.known]
        if unknown:
            raise UnknownNameError(
                f'Unknown settings {unknown} of {type(self).__name__}: expected among '
                f'{list(self.known)}, results, resume, on_error, interval and check_checkpoint.'
                f'{suggestion(unknown[0], self.known)}'
            )
        check_run(resume, on_error, interval, check_checkpoint)
        self._check(settings)
        self.settings = settings
        self.results = checked_outputs('results', results, self.recorder_type)
        self.resume, self.on_error, self.interval = resume, on_error, interval
        self.check_checkpoint = check_checkpoint

    @staticmethod
    @abstractmethod
    def _check(settings: Mapping[str, Any]) -> None:
        """Refuses settings of the decomposer that are wrong whatever the model."""

    @abstractmethod
    def _decomposer(self, runner: Any, facts: DataFacts) -> Any:
        """Returns what decomposes the model of the run, whose data set says ``facts``."""

    @abstractmethod
    def _text(self, decomposer: Any) -> str:
        """Returns what the log says of it."""

    def before_test_epoch(self, runner: Any) -> None:
        """Checks everything that can be wrong, and attaches."""
        self._let_go()  # A run that was interrupted between two frames told nobody.
        trained = check_checkpoint(runner) if self.check_checkpoint else ()
        facts = facts_of_run(runner, self.settings.get('frame_id'), trained)
        decomposer = self._decomposer(runner, facts)
        decomposer.names = facts.frame_names(REMEDY, runner.logger)
        results = dict(self.results)
        if results.get('dir') is None:
            results['dir'] = os.path.join(runner.work_dir, self.folder)
        recorder = self.recorder_type(
            decomposer.settings,
            resume=self.resume,
            interval=self.interval,
            data=facts.manifest,
            **results,
        )
        attachment = self.attachment_type(
            decomposer.model, lambda: (decomposer, recorder), self.on_error
        )
        self._attach(runner, attachment)
        runner.logger.info(f'{self._text(decomposer)}, results in {results["dir"]}')
