"""Explaining one of OpenPCDet's evaluations: what goes around ``eval_one_epoch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from ...core.structures import Explanation
from ..common.data_facts import UNKNOWN
from ..common.recorder import Counts, Recorder
from .attachment import Attachment
from .black_box import PcdetBlackBox
from .data_facts import facts_of
from .detector import unwrap
from .frame_explainer import FrameExplainer
from .frames import REMEDY
from .measuring import Measurement
from .reading import readable_frames
from .settings import PERTURBING, ExplainerSettings, settings_of


class ExplainedEvaluation:
    """A context in which each frame that a detector predicts is explained.

    It lets go of the detector after the last batch: the results are on the disk before OpenPCDet
    computes its metrics. Where the settings ask for metrics of the maps, each frame is measured
    after its batch.

    Args:
        model: The detector with its weights.
        batches: How many batches will come.
        logger: OpenPCDet's logger.
        folder: Folder of the results.
        settings: What to explain.
        dataset: The data set of the batches; None: nothing is known of it.

    Raises:
        InputError: If metrics are asked for, or detections selected by annotations, and the data
            set has none; or if its classes are not the detector's.
        SettingsMismatchError: If the folder belongs to another run.
        UnknownNameError: If the method, layer, a target or a kind of picture is unknown.
        NotApplicableError: If the detector cannot be explained, or not be asked about perturbed
            frames where Deletion or Insertion are to be measured.
        ResultFileError: If the folder cannot be written to.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: int,
        logger: Any,
        folder: str | Path,
        settings: ExplainerSettings,
        dataset: Any = None,
    ) -> None:
        self.left, self.logger = batches, logger
        model, facts = unwrap(model), facts_of(dataset)
        facts.warn(logger)
        if settings.metrics and settings.on_error == 'raise':
            facts.require_annotation(f'METRICS {list(settings.metrics)}')
        frames = FrameExplainer(
            model,
            settings.explainer,
            settings.targets,
            settings.select,
            facts=facts,
            **settings.tracing,
        )
        frames.names = facts.frame_names(REMEDY, logger)
        recorder = Recorder(
            frames.settings,
            resume=settings.resume,
            interval=settings.interval,
            logger=logger,
            data=facts.manifest,
            remedy=REMEDY,
            **{**settings.outputs, 'dir': folder},
        )
        self.measurement = _measurement(model, settings, Path(folder), logger)
        self._pending: list[Explanation] = []
        self.attachment = Attachment(
            model,
            lambda: (frames, recorder),
            settings.on_error,
            explained=self._pending.append if self.measurement else None,
        )
        logger.info(
            f'{type(frames.explainer).__name__} explains {[t.name for t in frames.targets]} of '
            f'{frames.tracer.head_path} at {frames.tracer.layer.name} into {folder}'
        )

    def __enter__(self) -> ExplainedEvaluation:
        self.attachment.attach()
        self._hook = self.attachment.model.register_forward_hook(self._after_batch)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        self.attachment.detach()

    def report(self, result: Any) -> Any:
        """Tells how good the maps are, after OpenPCDet's own metrics.

        Args:
            result: What OpenPCDet's evaluation returned: its metrics by name.

        Returns:
            The same, with the figures of the maps beside its own.
        """
        if self.measurement is None:
            return result
        figures = self.measurement.report()
        return {**result, **figures} if isinstance(result, Mapping) else result

    def _after_batch(self, *_: Any) -> None:
        while self._pending:
            self.measurement.add(self._pending.pop(0))
        self.left -= 1
        if self.left:
            return
        self.attachment.detach()
        if self.measurement is not None:
            self.measurement.gather()
        recorder = self.attachment.recorder
        device = next(self.attachment.model.parameters()).device
        sum_over_processes(recorder.counts, device)
        self.logger.info(f'Explained: {recorder.counts.text()}; in {recorder.folder}')
        if recorder.counts.unlabelled:
            self.logger.warning(f'There was {UNKNOWN.no_annotation()}')


def _measurement(
    model: nn.Module, settings: ExplainerSettings, folder: Path, logger: Any
) -> Measurement | None:
    measure = settings.measure()
    if measure is None:
        return None
    if PERTURBING & set(measure.evaluator.metrics):
        PcdetBlackBox(model, family=settings.head)  # Why it cannot be one, before the first frame.
    place = folder / 'metrics'
    return Measurement(measure, place, logger, settings.resume, settings.on_error)


def sum_over_processes(counts: Counts, device: torch.device) -> None:
    """Replaces the counts of one process by their sums over all."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    names = counts.summed
    total = torch.tensor([getattr(counts, name) for name in names], device=device)
    distributed.all_reduce(total)
    for name, value in zip(names, total.tolist(), strict=True):
        setattr(counts, name, value)


def explained(eval_one_epoch: Callable, out_dir: str | None = None) -> Callable:
    """Returns OpenPCDet's ``eval_one_epoch`` with an explainer attached.

    Args:
        eval_one_epoch: OpenPCDet's own.
        out_dir: Folder of the explanations, before that of the configuration.
    """

    def evaluate(
        cfg: Any, args: Any, model: nn.Module, dataloader: Any, epoch_id: Any, logger: Any,
        *rest: Any, result_dir: Path, **kwargs: Any,
    ) -> Any:  # fmt: skip
        settings = settings_of(cfg)
        folder = Path(out_dir or settings.outputs.get('dir') or result_dir / 'explanations')
        if getattr(args, 'eval_all', False) and result_dir not in folder.parents:
            folder = folder / f'epoch_{epoch_id}'
        dataset = getattr(dataloader, 'dataset', None)
        with (
            ExplainedEvaluation(model, len(dataloader), logger, folder, settings, dataset) as run,
            readable_frames(dataset, settings.on_error, logger),
        ):
            result = eval_one_epoch(
                cfg, args, model, dataloader, epoch_id, logger,
                *rest, result_dir=result_dir, **kwargs,
            )  # fmt: skip
        return run.report(result)

    return evaluate
