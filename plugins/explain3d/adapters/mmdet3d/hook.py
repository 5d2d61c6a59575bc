"""The hook that explains a test run of MMDetection3D."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger

from ...core.checks import require_text
from ...core.targets import TargetSpec
from ...registry import HOOKS
from ..common.data_facts import UNKNOWN
from ..common.frame_explainer import checked_explaining
from ..common.outputs import check_run, checked_outputs
from ..common.recorder import Recorder
from .attachment import Attachment, attachable
from .checkpoints import check_checkpoint
from .frame_explainer import FrameExplainer
from .frames import REMEDY
from .run_hook import TestRunHook, facts_of_run, sum_counts


@HOOKS.register_module()
class ExplainerHook(TestRunHook):
    """Explains the detections of every frame of a test run.

    It attaches to the detector when the test starts and lets go of it at the end; model,
    predictions and metrics are what they are without it. Each data sample carries its
    ``explanation`` by the time that metrics get it, and each frame is written to
    ``{dir}/{frame}.npz``. Several processes share the folder.

    Args:
        explainer: ``dict(type='FFAM', layer='stride4', ...)``.
        targets: What of a detection to explain: ``'all'``, ``['score', 'x']``, ...
        select: Which detections: ``dict(score_thr=0.3, top_n=20, classes=['Car'], matched='tp')``.
        outputs: ``dict(dir=..., save=True, pictures=False)``; see ``Recorder``. ``dir`` is
            ``{work_dir}/explanations`` by default.
        resume: Whether frames whose result is there, made with the same settings, weights, points
            and detections, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        frame_id: Entry of a sample's meta information that names its frame (``'sample_idx'``), by
            default the stem of its point file.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.

    Raises:
        UnknownNameError: If the method, a target, an argument of the selection or a kind of picture
            is unknown.
        InputError: If a setting is of the wrong kind or out of its range.

    Raises (from ``before_test_epoch``, before the first frame):
        UnknownNameError: If the layer or a class of the selection is unknown.
        CheckpointMismatchError: If the checkpoint is another model's.
        InputError: If the checkpoint, the head and the data set do not have the same classes in
            the same order, or ``matched`` is set and the data set has no annotation.
        ResultFileError: If the folder cannot be written to; ``SettingsMismatchError`` if it
            belongs to another run.
        TypeError: If the detector cannot be explained (MMEngine turns ``NotApplicableError`` of a
            hook into its parent class; the message is the same).

    Examples:
        >>> custom_hooks = [
        ...     dict(type='explain3d.ExplainerHook', explainer=dict(type='FFAM'), targets='all')
        ... ]
    """

    def __init__(
        self,
        explainer: str | dict = 'FFAM',
        targets: TargetSpec | Sequence[TargetSpec] = 'all',
        select: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        resume: bool = True,
        on_error: str = 'raise',
        interval: int = 10,
        frame_id: str | None = None,
        check_checkpoint: bool = True,
    ) -> None:
        check_run(resume, on_error, interval, check_checkpoint)
        _, parsed, _ = checked_explaining(explainer, targets, select)
        names = [target.name for target in parsed]
        self.outputs = checked_outputs('outputs', outputs, Recorder, names)
        self.explainer, self.targets, self.select = explainer, targets, select
        self.resume, self.on_error, self.interval = resume, on_error, interval
        self.frame_id = require_text('frame_id', frame_id, 'sample_idx')
        self.check_checkpoint = check_checkpoint

    def before_test_epoch(self, runner: Any) -> None:
        """Checks everything that can be wrong, and attaches."""
        self._let_go()  # A run that was interrupted between two frames told nobody.
        trained = check_checkpoint(runner) if self.check_checkpoint else ()
        logger = MMLogger.get_current_instance()
        facts = facts_of_run(runner, self.frame_id, trained)
        facts.warn(logger)
        frames = FrameExplainer(
            attachable(runner.model),
            self.explainer,
            self.targets,
            self.select,
            facts.classes,
            self.frame_id,
            facts,
        )
        frames.names = facts.frame_names(REMEDY, logger)
        outputs = dict(self.outputs)
        if outputs.get('dir') is None:
            outputs['dir'] = os.path.join(runner.work_dir, 'explanations')
        recorder = Recorder(
            frames.settings,
            resume=self.resume,
            interval=self.interval,
            logger=logger,
            data=facts.manifest,
            remedy=REMEDY,
            **outputs,
        )
        attachment = Attachment(frames.model, lambda: (frames, recorder), self.on_error)
        self._attach(runner, attachment)
        runner.logger.info(
            f'{type(frames.explainer).__name__} explains {[t.name for t in frames.targets]} at '
            f'{frames.tracer.layer.name} into {outputs["dir"]}'
        )

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Lets go of the detector and reports what all processes did."""
        attachment = self._let_go()
        if attachment is None or attachment.recorder is None:  # Not a single frame.
            return
        counts = attachment.recorder.counts
        device = next(attachment.model.parameters()).device
        sum_counts(counts, counts.summed, device)
        runner.logger.info(f'Explained: {counts.text()}; in {attachment.recorder.folder}')
        if counts.unlabelled:
            runner.logger.warning(f'There was {UNKNOWN.no_annotation()}')
