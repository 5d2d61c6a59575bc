"""The metrics of saliency maps as an evaluator of MMDetection3D's test runner."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from explain3d.core.errors import InputError
from explain3d.metrics.protocol import Protocol
from explain3d.metrics.saliency import METRICS as FIGURES
from explain3d.metrics.saliency import ObjectRecord, SaliencyEvaluator
from explain3d.metrics.saliency_table import Table, save_records, table_of
from explain3d.registry import METRICS


@METRICS.register_module()
class SaliencyMetric(BaseMetric):
    """Measures the explanations of a test run, object by object, with ``SaliencyEvaluator``.

    It needs an ``ExplainerHook`` or ``ExplainedModel``, whose explanations are on the data
    samples. Figures are given per class and pooled, each with its count and interval; the
    protocol is printed beside them.

    Args:
        metrics: Which; default all. Deletion and Insertion run the detector about 20 times for an
            object, on the part of the frame around it.
        protocol: Arguments of ``metrics.protocol.Protocol``.
        file: Where each object's record is written, as JSON; default none.
        draws: Resamples of the bootstrap.
        collect_device: As in ``BaseMetric``.
        prefix: As in ``BaseMetric``.

    Raises:
        UnknownNameError: If a metric is unknown.
        InputError: If the protocol is out of range.

    Examples:
        >>> test_evaluator = dict(type='explain3d.SaliencyMetric', metrics=['vea', 'pg', 'enpg'])
    """

    default_prefix = 'saliency'

    def __init__(
        self,
        metrics: Sequence[str] = tuple(FIGURES),
        protocol: Mapping[str, Any] | None = None,
        file: str | None = None,
        draws: int = 2000,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.evaluator = SaliencyEvaluator(Protocol(**(protocol or {})), metrics)
        self.file, self.draws = file, draws

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
            evaluator = self.evaluator
            digest = explanation.settings.get('model', '')
            if not evaluator.protocol.detector:
                protocol = replace(evaluator.protocol, detector=digest)
                evaluator = SaliencyEvaluator(protocol, evaluator.metrics)
            found = evaluator.evaluate({explanation.method: explanation}, explanation.black_box)
            self.results.append([asdict(record) for record in found])

    def compute_metrics(self, results: list[list[dict]]) -> dict[str, float]:
        """Summarises the objects of all frames.

        Args:
            results: For each frame, its objects' records.

        Returns:
            For each target, class and figure, mean and ends of the interval, and the counts.
        """
        # A sampler repeats frames to give every process equally many.
        seen = {}
        for frame in results:
            for values in frame:
                record = ObjectRecord(**values)
                seen.setdefault((record.name, record.method, record.target), record)
        records = list(seen.values())
        logger = MMLogger.get_current_instance()
        if self.file is not None and dist.is_main_process():
            save_records(records, os.fspath(self.file))
        if not records:
            logger.warning('No detection matched an object: there is nothing to measure.')
            return {'objects': 0}
        table = table_of(records, draws=self.draws)
        logger.info(_text(table))
        return _scalars(table)


def _scalars(table: Table) -> dict[str, float]:
    values: dict[str, float] = {}
    for ((_, target), category, figure), interval in table.cells.items():
        key = f'{target}/{category}/{figure}'
        values[key] = interval.mean
        values[f'{key}_low'], values[f'{key}_high'] = interval.low, interval.high
        values[f'{key}_count'] = interval.count
    return {**values, 'objects': table.counts()['all']}


def _text(table: Table) -> str:
    from explain3d.metrics.saliency_report import markdown

    return markdown(table)
