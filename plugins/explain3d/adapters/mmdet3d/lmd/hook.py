"""The hook that decomposes a test run of MMDetection3D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine import dist

from ....core.results import format_table
from ....registry import HOOKS
from ...common.data_facts import DataFacts
from ..attachment import attachable
from ..run_hook import sum_counts
from .decomposer import SETTINGS, FrameDecomposer
from .decomposing_hook import DecomposingHook
from .recorder import DecompositionRecorder
from .settings import check_settings


@HOOKS.register_module()
class LMDHook(DecomposingHook):
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
        UnknownNameError: If there is a setting of another name, or a rule, mode or kind of picture
            is unknown.
        InputError: If a setting is of the wrong kind or out of its range.

    Raises (from ``before_test_epoch``, before the first frame):
        UnknownNameError: If a module is unknown.
        CheckpointMismatchError: If the checkpoint is another model's.
        InputError: If the annotated region is asked for, and the data set has no annotation.
        ResultFileError: If the folder cannot be written to; ``SettingsMismatchError`` if it
            belongs to another run.

    Examples:
        >>> custom_hooks = [dict(type='explain3d.LMDHook', capture=['decoder.layer1'])]
    """

    known = SETTINGS
    folder = 'decompositions'

    @staticmethod
    def _check(settings: Mapping[str, Any]) -> None:
        check_settings(**settings)

    def _decomposer(self, runner: Any, facts: DataFacts) -> FrameDecomposer:
        decomposer = FrameDecomposer(attachable(runner.model), **self.settings)
        if decomposer.gradcam is not None and decomposer.gradcam.region == 'annotated':
            facts.require_annotation("gradcam with region='annotated'")
        return decomposer

    def _text(self, decomposer: FrameDecomposer) -> str:
        modalities = dict.fromkeys(m for seed in decomposer.seeds for m in seed.modalities)
        return f'LMD decomposes {list(decomposer.outputs)} into {[*modalities, "bias"]}'

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Lets go of the model and reports what all processes did."""
        attachment = self._let_go()
        if attachment is None or attachment.recorder is None:  # Not a single frame.
            return
        recorder = attachment.recorder
        counts, device = recorder.counts, next(attachment.model.parameters()).device
        sum_counts(counts, counts.summed, device)
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
