"""Average saliency maps as an evaluator of MMDetection3D's test runner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from explain3d.adapters.common.data_facts import UNKNOWN
from explain3d.core.checks import require_flag, require_text
from explain3d.core.errors import InputError
from explain3d.metrics.average_files import averaged_in, write_arrays, write_tables
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import AverageProtocol
from explain3d.metrics.average_report import markdown
from explain3d.metrics.average_shares import FrameShare, share_of
from explain3d.metrics.average_statistics import Figure, figures
from explain3d.registry import METRICS


@METRICS.register_module()
class AverageMapMetric(BaseMetric):
    """Averages the maps of a test run by class, and compares true with false positives.

    It needs an ``ExplainerHook`` or ``ExplainedModel``, whose explanations are on the data
    samples. Select without ``matched``, so that there are detections of both kinds.
    ``tools/average_maps.py`` does the same over the files of a run, whatever its host.

    Any number of processes gives the same figures and files: the shares of all frames are put
    together before anything is averaged.

    Args:
        dir: Folder of arrays, tables and pictures (docs/average_maps.md); default none.
        protocol: Arguments of ``metrics.average_protocol.AverageProtocol``.
        pictures: Whether pictures are among them.
        collect_device: As in ``BaseMetric``.
        prefix: As in ``BaseMetric``.

    Raises:
        InputError: If a setting is of the wrong kind or out of its range.
        UnknownNameError: If a key of the protocol is unknown.

    Examples:
        >>> test_evaluator = dict(type='explain3d.AverageMapMetric', dir='work_dirs/averages')
    """

    default_prefix = 'average_maps'

    def __init__(
        self,
        dir: str | None = None,
        protocol: Mapping[str, Any] | None = None,
        pictures: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.protocol = AverageProtocol.from_dict(protocol)
        self.dir = require_text('dir', dir, 'work_dirs/average_maps')
        self.pictures = require_flag('pictures', pictures)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps what the frames of a batch contribute; one entry a frame, whatever it has.

        A frame that could not be explained (``on_error='skip'``) contributes nothing.

        Raises:
            InputError: If a sample has no explanation, or a map is not finite.
        """
        for sample in data_samples:
            explanation = sample.get('explanation')
            if explanation is None:
                raise InputError(
                    'Expected data samples with an "explanation", received one without: add an '
                    'explain3d.ExplainerHook to custom_hooks.'
                )
            failed = 'error' in explanation.maps.info
            self.results.append(None if failed else share_of(explanation, self.protocol))

    def compute_metrics(self, results: list[FrameShare | None]) -> dict[str, float]:
        """Averages the maps of all frames, and writes the files.

        Args:
            results: What each frame contributes; None for one that could not be explained.

        Returns:
            For each class, set and figure the value and the ends of its interval; of figures of
            maps those of the first target (``table.json`` has all).
        """
        logger = MMLogger.get_current_instance()
        shares = [share for share in results if share is not None]
        if not shares:
            logger.warning('No frame was explained: there is nothing to average.')
            return {'detections': 0}
        collection = MapCollection(shares, self.protocol)
        if not collection.objects:
            logger.warning(
                f'There is {UNKNOWN.no_annotation()} True and false positives cannot be told apart.'
            )
        found = figures(collection)
        logger.info(markdown(collection, found))
        if self.dir is not None:
            self._write(collection, found)
        first = collection.targets[:1]
        return scalars([figure for figure in found if figure.target in ('', *first)])

    def _write(self, collection: MapCollection, found: Sequence[Figure]) -> None:
        if averaged_in(self.dir) not in (None, collection.explained):
            MMLogger.get_current_instance().warning(
                f'{self.dir} holds the averages of another run: they are replaced.'
            )
        write_arrays(collection, self.dir)
        write_tables(collection, self.dir, found)
        if self.pictures:
            # matplotlib is loaded by those alone who want pictures.
            from explain3d.visualization.average_render import write_pictures

            write_pictures(collection, self.dir)


def scalars(found: Sequence[Figure]) -> dict[str, float]:
    """Returns figures by name, with the ends of their intervals where they have them."""
    values: dict[str, float] = {}
    for figure in found:
        parts = (figure.category, figure.which, figure.target, figure.name)
        key = '/'.join(part for part in parts if part)
        values[key] = figure.value
        if not math.isnan(figure.low):
            values[f'{key}_low'], values[f'{key}_high'] = figure.low, figure.high
    return values
