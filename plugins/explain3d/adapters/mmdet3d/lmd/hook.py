"""The hook that decomposes a test run of MMDetection3D."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine import dist

from ....core.results import format_table
from ....registry import HOOKS
from ..attachment import attachable
from ..checkpoints import check_checkpoint
from ..run_hook import TestRunHook, sum_counts
from .attachment import DecompositionAttachment
from .decomposer import FrameDecomposer, OutputsSpec, SeedsSpec
from .recorder import DecompositionRecorder


@HOOKS.register_module()
class LMDHook(TestRunHook):
    """Decomposes every frame of a test run into its modalities (LMD).

    It attaches to the model when the test starts and lets go of it at the end; model, predictions
    and metrics are what they are without it. Each data sample carries its ``decomposition`` by the
    time that metrics get it, and each frame is written to ``{dir}/{frame}.npz``. Several processes
    share the folder.

    Args:
        seeds: Where components start; None: where the model proposes (``model.lmd_seeds()``);
            'cameras': each camera on its own. Otherwise a list of ``lmd.Seed`` as dicts.
        outputs: Where they end; None: what the model proposes (``model.lmd_outputs``).
        rules: ``dict(activation='identity', bias_split='identity', instance_norm='ratio', ...)``.
        mode: 'production', or 'check', which measures the residual at every layer.
        capture: Paths of modules to look at inside the network.
        keep: What is kept of them: 'shares', 'maps' or 'full'.
        stop: As in ``lmd.Decomposition``.
        gradcam: As in ``FrameDecomposer``.
        references: As in ``FrameDecomposer``.
        results: ``dict(dir=..., save=True, pictures=False)``; see ``Recorder``. ``dir`` is
            ``{work_dir}/decompositions`` by default.
        resume: Whether frames whose result is there, made with the same settings, weights and
            inputs, are taken from their file.
        on_error: ``'raise'``, or ``'skip'`` for runs that shall not end at a bad frame.
        interval: Frames from one line of the log to the next.
        frame_id: Entry of the meta information that names a frame.
        check_checkpoint: Whether to refuse a checkpoint that lacks parameters of the model.

    Raises (from ``before_test_epoch``, before the first frame):
        UnknownNameError: If a module, rule, mode or kind of picture is unknown.
        CheckpointMismatchError: If the checkpoint is another model's.
        ResultFileError: If the folder cannot be written to.

    Examples:
        >>> custom_hooks = [dict(type='explain3d.LMDHook', capture=['decoder.layer1'])]
    """

    def __init__(
        self,
        seeds: SeedsSpec = None,
        outputs: OutputsSpec = None,
        rules: Mapping[str, Any] | None = None,
        mode: str = 'production',
        capture: Sequence[str] = (),
        keep: str = 'maps',
        stop: Sequence[str] = (),
        gradcam: Mapping[str, Any] | None = None,
        references: Mapping[str, Mapping[str, Any]] | None = None,
        results: Mapping[str, Any] | None = None,
        resume: bool = True,
        on_error: str = 'raise',
        interval: int = 10,
        frame_id: str | None = None,
        check_checkpoint: bool = True,
    ) -> None:
        self.settings = dict(
            seeds=seeds, outputs=outputs, rules=rules, mode=mode, capture=capture, keep=keep,
            stop=stop, gradcam=gradcam, references=references, frame_id=frame_id,
        )  # fmt: skip
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
