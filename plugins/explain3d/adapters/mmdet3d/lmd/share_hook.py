"""The hook that tells of each box of a test run which sensor made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....core.results import file_stem
from ....lmd.detections import SensorShares
from ....registry import HOOKS
from ...common.class_names import check_class_order
from ...common.data_facts import DataFacts
from ...common.recorder import Counts
from ...common.shares import check_share_settings
from ..attachment import attachable
from ..detector import head_classes
from ..run_hook import sum_counts
from .attachment import DecompositionAttachment
from .batch import BatchFrame
from .decomposing_hook import DecomposingHook
from .perturb import check_sensors
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
    done = 'Read out'
    picture_keys = ('kinds',)

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """The kinds of pictures that there are: 'boxes', the frame from above."""
        return ('boxes',)

    def resumed(self, found: SensorShares, frame: BatchFrame, updated: bool = False) -> None:
        """Counts a frame that was taken from its file; arguments as in the base class."""
        found.points = frame.points().get('lidar')
        super().resumed(found, frame, updated)

    def _note(self, found: SensorShares) -> None:
        self.counts.detections += len(found.detections)
        self._progress()

    def _draw_frame(
        self, found: SensorShares, images: Mapping[str, Any], only_missing: bool = False
    ) -> None:
        if self.pictures is None:
            return
        from ....visualization import save_figure, share_view

        path = self.folder / 'pictures' / f'{file_stem(found.frame_id)}_boxes.png'
        if not (only_missing and path.is_file()):
            save_figure(share_view(found), path)


@HOOKS.register_module()
class SensorShareHook(DecomposingHook):
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
        UnknownNameError: If there is a setting of another name, or a rule, mode or kind of picture
            is unknown.
        InputError: If a setting is of the wrong kind or out of its range.

    Examples:
        >>> custom_hooks = [dict(type='explain3d.SensorShareHook', score_thr=0.3)]
    """

    known = SHARE_SETTINGS
    folder = 'sensor_shares'
    attachment_type = ShareAttachment
    recorder_type = ShareRecorder

    @staticmethod
    def _check(settings: Mapping[str, Any]) -> None:
        check_share_settings(**settings)
        check_sensors(settings.get('sensors'))

    def _decomposer(self, runner: Any, facts: DataFacts) -> ShareDecomposer:
        settings = {'class_names': facts.classes, **self.settings}
        decomposer = ShareDecomposer(attachable(runner.model), **settings)
        trained = head_classes(decomposer.model)
        check_class_order(decomposer.class_names, trained, 'its head', runner.logger)
        return decomposer

    def _text(self, decomposer: ShareDecomposer) -> str:
        return (
            f'LMD tells {list(decomposer.modalities)} apart in the boxes of {decomposer.path}, '
            f'blanking {list(decomposer.blank)}'
        )

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Lets go of the model and reports what all processes did."""
        attachment = self._let_go()
        if attachment is None or attachment.recorder is None:  # Not a single frame.
            return
        counts, device = attachment.recorder.counts, next(attachment.model.parameters()).device
        sum_counts(counts, counts.summed, device)
        runner.logger.info(f'Read out: {counts.text()}; in {attachment.recorder.folder}')
