"""The hook that decomposes a test run of MMDetection3D."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist

from ....core.errors import UnknownNameError
from ....core.results import format_table
from ....registry import HOOKS
from ..attachment import attachable
from ..checkpoints import check_checkpoint
from ..run_hook import TestRunHook, sum_counts
from .attachment import DecompositionAttachment
from .decomposer import SETTINGS, FrameDecomposer
from .recorder import DecompositionRecorder


@HOOKS.register_module()
class LMDHook(TestRunHook):
    """Decomposes every frame of a test run into its modalities (LMD).

    It attaches to the model when the test starts and lets go of it at the end; model, predictions
    and metrics are what they are without it. Each data sample carries its ``decomposition`` by the
    time that metrics get it, and each frame is written to ``{dir}/{frame}.npz``. Several processes
    share the folder.

    Args:
        results: ``dict(dir=..., save=True, pictures=False)``; see ``Recorder``. ``dir`` is
            ``{work_dir}/decompositions`` by default.
        resume: Whether frames whose result is there, made with the same settings, weights and
            inputs, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.
        settings: What is decomposed, and how: ``seeds``, ``outputs``, ``rules``, ``mode``,
            ``capture``, ``keep``, ``stop``, ``gradcam``, ``references``, ``frame_id``, as in
            ``FrameDecomposer``. By default from where to where the model proposes.

    Raises:
        UnknownNameError: If there is a setting of another name.

    Raises (from ``before_test_epoch``, before the first frame):
        UnknownNameError: If a module, rule, mode or kind of picture is unknown.
        CheckpointMismatchError: If the checkpoint is another model's.
        ResultFileError: If the folder cannot be written to.

    Examples:
        >>> custom_hooks = [dict(type='explain3d.LMDHook', capture=['decoder.layer1'])]
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
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown:
            raise UnknownNameError(
                f'Unknown settings {unknown} of LMDHook: expected among {list(SETTINGS)}, '
                'results, resume, on_error, interval and check_checkpoint.'
            )
        self.settings = settings
        self.results = dict(results or {})
        self.resume, self.on_error, self.interval = resume, on_error, interval
        self.check_checkpoint = check_checkpoint

    def before_test_epoch(self, runner: Any) -> None:
        """Checks everything that can be wrong, and attaches."""
        self._let_go()  # A run that was interrupted between two frames told nobody.
        if self.check_checkpoint:
            check_checkpoint(runner)
        decomposer = FrameDecomposer(attachable(runner.model), **self.settings)
        results = dict(self.results)
        if results.get('dir') is None:
            results['dir'] = os.path.join(runner.work_dir, 'decompositions')
        recorder = DecompositionRecorder(
            decomposer.settings, resume=self.resume, interval=self.interval, **results
        )
        self.attachment = DecompositionAttachment(
            decomposer.model, lambda: (decomposer, recorder), self.on_error
        )
        self.attachment.attach()
        modalities = dict.fromkeys(m for seed in decomposer.seeds for m in seed.modalities)
        runner.logger.info(
            f'LMD decomposes {list(decomposer.outputs)} into {[*modalities, "bias"]}, results in '
            f'{results["dir"]}'
        )

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Lets go of the model and reports what all processes did."""
        attachment = self._let_go()
        if attachment is None or attachment.recorder is None:  # Not a single frame.
            return
        recorder = attachment.recorder
        counts, device = recorder.counts, next(attachment.model.parameters()).device
        sum_counts(counts, ('frames', 'resumed', 'failed'), device)
        table = _shares_table(recorder, device)
        runner.logger.info(f'Decomposed: {counts.text()}; in {recorder.folder}\n{table}')


def _shares_table(recorder: DecompositionRecorder, device: torch.device) -> str:
    """The mean shares of all processes' frames, as a table."""
    rows = []
    for layer, (total, count) in recorder.shares.items():
        sums = torch.cat([total, total.new_tensor([count])]).to(device, torch.float64)
        dist.all_reduce(sums)
        *values, frames = sums.tolist()
        shares = {n: v / max(frames, 1) for n, v in zip(recorder.names, values, strict=True)}
        rows.append({'share of': layer, **shares, 'frames': int(frames)})
    return format_table(rows) if rows else ''
