"""The metrics of saliency maps in OpenPCDet's test run: measured on the way, told at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import distributed

from ...core.errors import Explain3DError
from ...core.structures import Explanation
from ...metrics.saliency import ObjectRecord
from ...metrics.saliency_table import table_of
from ..common.measuring import (
    ExplanationMeasure,
    RecordFolder,
    each_once,
    nothing_to_measure,
    scalars_of,
    write_tables,
)


class Measurement:
    """Measures the explanations of one evaluation.

    Each frame's records are in ``{folder}/frames``; a run that was stopped goes on from there.

    Args:
        measure: What measures.
        folder: Of the records and tables.
        logger: OpenPCDet's logger.
        resume: Whether to take records from files.
        on_error: ``'raise'``, or ``'skip'`` to log a frame that cannot be measured, and go on.
    """

    def __init__(
        self,
        measure: ExplanationMeasure,
        folder: Path,
        logger: Any,
        resume: bool = True,
        on_error: str = 'raise',
    ) -> None:
        self.folder, self.logger, self.on_error = folder, logger, on_error
        self.frames = RecordFolder(measure, folder / 'frames', resume)
        self.records: list[ObjectRecord] = []
        self.objects = 0

    def add(self, explanation: Explanation) -> None:
        """Measures a frame.

        Raises:
            InputError: As ``ExplanationMeasure.records``.
        """
        self.objects += len(explanation.ground_truth or ())
        try:
            self.records += self.frames.records(explanation)
        except Explain3DError as error:
            if self.on_error == 'raise':
                raise
            self.logger.error(f'Frame {explanation.frame_id!r} is not measured: {error}')

    def gather(self) -> None:
        """Brings the records of all processes together; each of them has to call it."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        parts: list[Any] = [None] * distributed.get_world_size()
        mine = self.objects, [asdict(record) for record in self.records]
        distributed.all_gather_object(parts, mine)
        self.objects = sum(objects for objects, _ in parts)
        self.records = [ObjectRecord(**values) for _, part in parts for values in part]

    def report(self) -> Mapping[str, float]:
        """Writes and logs the table, in the first process; returns the figures by name."""
        if distributed.is_available() and distributed.is_initialized() and distributed.get_rank():
            return {}
        records = each_once(self.records)
        if not records:
            self.logger.warning(nothing_to_measure(self.objects))
            return {'saliency/objects': 0}
        table = table_of(records)
        text = write_tables(table, records, self.folder)
        self.logger.info(f'How good the maps are; in {self.folder}\n\n{text}\n')
        return {f'saliency/{name}': value for name, value in scalars_of(table).items()}
