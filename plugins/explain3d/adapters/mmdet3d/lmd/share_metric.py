"""Which sensor made the boxes of a data set, as an evaluator of MMDetection3D's test runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ....core.checks import require_text
from ....core.errors import InputError
from ....lmd.sensor_report import figures, markdown
from ....lmd.sensor_table import BoxShares, SensorTable, boxes_of, require_edges, table_of
from ....lmd.tags import read_tags
from ....registry import METRICS
from ...common.share_report import of_frames, protocol_of, write_report
from .share_hook import SHARES


@METRICS.register_module()
class SensorShareMetric(BaseMetric):
    """Sums up the sensor shares of a test run by class, range and tag, with a ``SensorShareHook``.

    The table says for each group of boxes what part of the evidence each sensor is, what blanking
    a sensor does to the boxes, and how the two correlate.

    Args:
        edges: Where ranges begin, metres; the last has no end.
        tags: A file of tags of frames and objects (``explain3d.lmd.tags``); its groups stand in
            the report, too. A detection is on the annotated object that it overlaps most in the
            bird's-eye view, by more than the hook's ``overlap``.
        dir: Folder for ``report.md``, ``report.csv``, ``report.json`` and ``report.png``; None:
            nothing is written.
        collect_device: As in ``BaseMetric``.
        prefix: As in ``BaseMetric``.

    Raises:
        InputError: If ``tags`` is no such file, or knows none of the run's frames, or another
            setting is of the wrong kind or out of its range.

    Examples:
        >>> test_evaluator = [dict(type='NuScenesMetric', ...),  # doctest: +SKIP
        ...                   dict(type='explain3d.SensorShareMetric')]
    """

    default_prefix = 'sensors'

    def __init__(
        self,
        edges: Sequence[float] = (0, 20, 40),
        tags: str | None = None,
        dir: str | None = None,  # noqa: A002 - a configuration's key
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.edges = require_edges(edges)
        self.dir = require_text('dir', dir, 'work_dirs/sensors')
        self.tags = {} if tags is None else read_tags(require_text('tags', tags, 'tags.json'))
        self.table: SensorTable | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the figures of a batch's boxes; one entry a frame, whatever it has.

        Raises:
            InputError: If a sample has no shares.
        """
        for sample in data_samples:
            found = sample.get(SHARES)
            if found is None:
                raise InputError(
                    f'Expected data samples with {SHARES!r}, received one without: add an '
                    'explain3d.SensorShareHook to custom_hooks.'
                )
            tags = self.tags.get(found.frame_id)
            boxes = [asdict(box) for box in boxes_of(found, tags, found.settings['overlap'])]
            self.results.append(
                dict(frame=found.frame_id, boxes=boxes, settings=protocol_of(found.settings))
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Summarises the boxes of all frames, logs the report and writes it.

        Args:
            results: For each frame, its boxes and what decided them.

        Returns:
            Figures of all boxes and of each class; only their number, 0, if there is none.
        """
        frames = {frame['frame']: frame for frame in results}  # Samplers repeat frames.
        boxes = [BoxShares(**box) for frame in frames.values() for box in frame['boxes']]
        logger = MMLogger.get_current_instance()
        if not boxes:
            logger.warning('No detection has the score: there is nothing to report.')
            return {'all/boxes': 0}
        settings = next(iter(frames.values()))['settings']
        protocol = of_frames(settings, list(frames), self.tags)
        self.table = table_of(boxes, self.edges, protocol)
        logger.info(f'\n{markdown(self.table)}')
        if self.dir is not None and dist.is_main_process():
            write_report(self.table, Path(self.dir))
        return figures(self.table)
