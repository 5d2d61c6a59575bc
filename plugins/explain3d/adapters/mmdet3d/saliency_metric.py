"""The metrics of saliency maps as an evaluator of MMDetection3D's test runner."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mmengine import dist
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MMLogger

from explain3d.adapters.common.measuring import (
    ExplanationMeasure,
    each_once,
    nothing_to_measure,
    scalars_of,
)
from explain3d.core.checks import require_names, require_text, require_whole
from explain3d.core.errors import InputError
from explain3d.metrics.saliency import METRICS as FIGURES
from explain3d.metrics.saliency import ObjectRecord
from explain3d.metrics.saliency_report import markdown
from explain3d.metrics.saliency_table import save_records, table_of
from explain3d.registry import EVALUATOR, METRICS


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """Measures the explanations of a test run, object by object, with ``SaliencyEvaluator``.

    It needs an ``ExplainerHook`` or ``ExplainedModel``, whose explanations are on the data
    samples. Figures are given per class and pooled, each with its count and interval; the
    protocol is printed beside them.

    Args:
        figures: Which, some of ``explain3d.metrics.saliency.METRICS``; default all. Deletion and
            Insertion run the detector about 20 times for an object, on the part of the frame
            around it.
        protocol: Arguments of ``metrics.protocol.Protocol``.
        file: Where each object's record is written, as JSON; default none.
        draws: Resamples of the bootstrap.
        collect_device: As in ``BaseMetric``.
        prefix: As in ``BaseMetric``.
        metrics: The former name of ``figures``. MMEngine takes a dict with a key ``metrics`` for a
            whole evaluator.

    Raises:
        UnknownNameError: If a figure is unknown.
        InputError: If a setting is of the wrong kind or out of its range.

    Examples:
        >>> test_evaluator = dict(type='explain3d.SaliencyMetric', figures=['vea', 'pg', 'enpg'])
    """

    default_prefix = 'saliency'

    def __init__(
        self,
        figures: Sequence[str] | None = None,
        protocol: Mapping[str, Any] | None = None,
        file: str | None = None,
        draws: int = 2000,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        metrics: Sequence[str] | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        figures = _renamed(figures, metrics)
        self.measure = ExplanationMeasure(tuple(FIGURES) if figures is None else figures, protocol)
        self.file = require_text('file', file, 'work_dirs/records.json')
        self.draws = require_whole('draws', draws)
        self.objects = 0  # Annotated ones in the frames of this process.

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Measures the frames of a batch; one entry a frame, whatever it has.

        Raises:
            InputError: If a sample has no explanation or annotations, or a map is not finite.
        """
        for sample in data_samples:
            explanation = sample.get('explanation')
            if explanation is None:
                raise InputError(
                    'Expected data samples with an "explanation", received one without: add an '
                    'explain3d.ExplainerHook to custom_hooks.'
                )
            self.objects += len(explanation.ground_truth or ())
            found = self.measure.records(explanation)
            self.results.append([asdict(record) for record in found])

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        """Summarises the objects of all frames.

        Args:
            results: For each frame, its objects' records.

        Returns:
            For each target, class and figure, mean and ends of the interval, and the counts.
        """
        records = each_once(ObjectRecord(**values) for frame in results for values in frame)
        logger = MMLogger.get_current_instance()
        if self.file is not None and dist.is_main_process():
            save_records(records, os.fspath(self.file))
        if not records:
            logger.warning(nothing_to_measure(self.objects))
            return {'objects': 0}
        table = table_of(records, draws=self.draws)
        logger.info(markdown(table))
        return scalars_of(table)


@EVALUATOR.register_module(name='SaliencyMetric')
def _evaluator_of(**settings: Any) -> Evaluator:
    """Returns the evaluator for which MMEngine takes a ``SaliencyMetric`` with ``metrics``."""
    return Evaluator(metrics=[SaliencyMetric(**settings)])


def _renamed(figures: Sequence[str] | None, metrics: Sequence[str] | None) -> Sequence[str] | None:
    """Returns what is to be measured, under its present or its former name."""
    if metrics is None:
        return require_names('figures', figures, 'vea')
    if figures is not None:
        raise InputError(
            f'Expected figures, received {figures} and, by its former name metrics, {metrics}: '
            'leave metrics out.'
        )
    warnings.warn(
        'SaliencyMetric: metrics is now called figures, because MMEngine takes a dict with a key '
        'metrics for a whole evaluator.',
        DeprecationWarning,
        stacklevel=3,
    )
    return require_names('metrics', metrics, 'vea')
