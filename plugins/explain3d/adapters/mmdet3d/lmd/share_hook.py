"""The hook that tells of each box of a test run which sensor made it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ....core.errors import UnknownNameError
from ....core.results import file_stem
from ....lmd.detections import SensorShares
from ....registry import HOOKS
from ...common.recorder import Counts
from ..attachment import attachable
from ..checkpoints import check_checkpoint
from ..run_hook import TestRunHook, sum_counts
from .attachment import DecompositionAttachment
from .batch import BatchFrame
from .recorder import DecompositionRecorder
from .share_decomposer import SHARE_SETTINGS, ShareDecomposer

#: Name of the result on a data sample, and in the dict that metrics get.
SHARES = 'sensor_shares'


class ShareAttachment(DecompositionAttachment):
    """Reads the shares of every box that the model predicts; see ``DecompositionAttachment``."""

    once_only = 'one at a time. Use one SensorShareHook, and no LMDHook beside it.'
    field = SHARES


class ShareRecorder(DecompositionRecorder):
    """Keeps the shares of a run; arguments as ``Recorder``."""

    counts_type = Counts

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """The kinds of pictures that there are: 'boxes', the frame from above."""
        return ('boxes',)

    def resumed(self, found: SensorShares, frame: BatchFrame) -> None:
        """Counts a frame that was taken from its file; draws what is missing."""
        found.points = frame.points().get('lidar')
        super().resumed(found, frame)

    def _note(self, found: SensorShares) -> None:
        self._count(found)

    def _draw_frame(self, found: SensorShares, images: Mapping[str, Any]) -> None:
        if self.pictures is None:
            return
        from ....visualization import save_figure, share_view

        path = self.folder / 'pictures' / f'{file_stem(found.frame_id)}_boxes.png'
        save_figure(share_view(found), path)


@HOOKS.register_module()
class SensorShareHook(TestRunHook):
    """Tells of every box of a test run which sensor made it (LMD through the detection head).

    Model, predictions and metrics are what they are without it. Each data sample carries its
    ``sensor_shares`` by the time that metrics get it (``explain3d.SensorShareMetric``), and each
    frame is written to ``{dir}/{frame}.npz``. Several processes share the folder.

    Args:
        results: ``dict(dir=..., save=True, pictures=False)``; ``dir`` is
            ``{work_dir}/sensor_shares`` by default, ``pictures=True`` draws each frame.
        resume: Whether frames whose result is there, made with the same settings, weights and
            inputs, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.
        settings: ``seeds``, ``rules``, ``mode``, ``blank``, ``sensors``, ``score_thr``,
            ``overlap``, ``class_names``, ``frame_id``, as in ``ShareDecomposer``.

    Raises:
        UnknownNameError: If there is a setting of another name.

    Examples:
        >>> custom_hooks = [dict(type='explain3d.SensorShareHook', score_thr=0.3)]
    """

    def __init__(
        self,
        results: Mapping[str, Any] | None = None,
        resume: bool = True,
        on_error: str = 'raise',
        interval: int = 10,
        check_checkpoint: bool = True,
        **settings: Any,
    ) -> None:
        unknown = [name for name in settings if name not in SHARE_SETTINGS]
        if unknown:
            raise UnknownNameError(
                f'Unknown settings {unknown} of SensorShareHook: expected among '
                f'{list(SHARE_SETTINGS)}, results, resume, on_error, interval and '
                'check_checkpoint.'
            )
        self.settings, self.results = settings, dict(results or {})
        self.resume, self.on_error, self.interval = resume, on_error, interval
        self.check_checkpoint = check_checkpoint

    def before_test_epoch(self, runner: Any) -> None:
        """Checks everything that can be wrong, and attaches."""
        self._let_go()  # A run that was interrupted between two frames told nobody.
        if self.check_checkpoint:
            check_checkpoint(runner)
        dataset = getattr(runner.test_dataloader, 'dataset', None)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        settings = {'class_names': classes, **self.settings}
        decomposer = ShareDecomposer(attachable(runner.model), **settings)
        results = dict(self.results)
        if results.get('dir') is None:
            results['dir'] = os.path.join(runner.work_dir, 'sensor_shares')
        recorder = ShareRecorder(
            decomposer.settings, resume=self.resume, interval=self.interval, **results
        )
        self.attachment = ShareAttachment(
            decomposer.model, lambda: (decomposer, recorder), self.on_error
        )
        self.attachment.attach()
        runner.logger.info(
            f'LMD tells {list(decomposer.modalities)} apart in the boxes of {decomposer.path}, '
            f'blanking {list(decomposer.blank)}; results in {results["dir"]}'
        )

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Lets go of the model and reports what all processes did."""
        attachment = self._let_go()
        if attachment is None or attachment.recorder is None:  # Not a single frame.
            return
        counts, device = attachment.recorder.counts, next(attachment.model.parameters()).device
        sum_counts(counts, ('frames', 'detections', 'resumed', 'failed'), device)
        runner.logger.info(f'Read out: {counts.text()}; in {attachment.recorder.folder}')
