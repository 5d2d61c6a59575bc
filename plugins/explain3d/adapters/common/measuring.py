"""Measuring the explanations of a test run, frame by frame, whatever the host."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import ResultFileError
from ...core.results import file_stem, fingerprint
from ...core.results_archive import refuse_folder
from ...core.results_atomic import atomic_write, remove_stale
from ...core.structures import Explanation
from ...metrics.protocol import Protocol
from ...metrics.saliency import METRICS, ObjectRecord, SaliencyEvaluator
from ...metrics.saliency_report import csv_text, markdown
from ...metrics.saliency_table import Table, load_records, save_records
from .data_facts import UNKNOWN

_LOG = logging.getLogger('explain3d')


_LOG = logging.getLogger('explain3d')


class ExplanationMeasure:
    """Measures one explanation at a time; the protocol names the detector by its weights.

    Args:
        metrics: Which.
        protocol: Arguments of ``metrics.protocol.Protocol``.

    Raises:
        UnknownNameError: If a metric is unknown.
        InputError: If the protocol has an unknown part, or one out of its range.
    """

    def __init__(
        self,
        metrics: Sequence[str] = tuple(METRICS),
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        self.evaluator = SaliencyEvaluator(Protocol.from_dict(protocol or {}), metrics)

    def evaluator_for(self, explanation: Explanation) -> SaliencyEvaluator:
        """Returns the evaluator whose protocol names the detector that was explained."""
        evaluator = self.evaluator
        if evaluator.protocol.detector:
            return evaluator
        digest = explanation.settings.get('model', '')
        return SaliencyEvaluator(replace(evaluator.protocol, detector=digest), evaluator.metrics)

    def records(self, explanation: Explanation) -> list[ObjectRecord]:
        """Returns a record for each object and target.

        None of a frame that could not be explained, where the run goes on (``on_error='skip'``).

        Raises:
            InputError: If the frame has no annotations, a map is not finite, or the detector is
                needed and missing.
        """
        if 'error' in explanation.maps.info:
            return []
        evaluator = self.evaluator_for(explanation)
        return evaluator.evaluate({explanation.method: explanation}, explanation.black_box)


class RecordFolder:
    """Keeps the records of each frame in a file, and takes them from there in a later run.

    A file's name says what was measured and how: records of other settings, points, maps,
    detections, annotations, class names or metrics are not taken for the same.

    Args:
        measure: What measures.
        folder: Of the files, ``{frame}_{digest}.json``.
        resume: Whether to take records from files.
    """

    def __init__(
        self, measure: ExplanationMeasure, folder: str | os.PathLike, resume: bool = True
    ) -> None:
        self.measure, self.folder, self.resume = measure, Path(folder), resume
        remove_stale(self.folder)

    def path(self, explanation: Explanation) -> Path:
        """Returns the file of an explanation's records."""
        evaluator = self.measure.evaluator_for(explanation)
        found, truth = explanation.detections, explanation.ground_truth
        content = {
            'settings': explanation.settings,
            'protocol': evaluator.protocol.as_dict(),
            'metrics': list(evaluator.metrics),
            'points': explanation.points,
            'maps': explanation.maps.saliency,
            'detections': [found.boxes, found.scores, found.labels, found.class_names],
            'objects': None if truth is None else [truth.boxes, truth.labels, truth.class_names],
        }
        name = f'{file_stem(explanation.frame_id)}_{fingerprint(content)[:12]}.json'
        return self.folder / name

    def records(self, explanation: Explanation) -> list[ObjectRecord]:
        """Returns the records of a frame, from its file where there is a sound one.

        Raises:
            InputError: As ``ExplanationMeasure.records``.
            ResultFileError: If a folder has the file's name, or the file cannot be written.
        """
        if 'error' in explanation.maps.info:
            return []
        path = self.path(explanation)
        refuse_folder(path, 'file of records')
        if self.resume and path.is_file():
            try:
                return load_records(path)
            except ResultFileError as error:
                _LOG.warning('%s It is measured again.', error)
                path.unlink()
        records = self.measure.records(explanation)
        save_records(records, path)
        return records


def each_once(records: Iterable[ObjectRecord]) -> list[ObjectRecord]:
    """Returns each object once for each method and target, in order of the frames' names.

    Samplers repeat frames to give every process equally many. Objects that share a name and are
    not the same are told to the log: their frames have one name.
    """
    seen: dict[tuple[str, str, str], ObjectRecord] = {}
    for record in records:
        first = seen.setdefault((record.name, record.method, record.target), record)
        if (first.category, first.points) != (record.category, record.points):
            _LOG.warning(
                f'Two objects are called {record.name!r}: {first.category} with {first.points} '
                f'points and {record.category} with {record.points}. Only the first counts. '
                'Expected a name for each frame.'
            )
    return sorted(seen.values(), key=lambda record: record.frame)


def nothing_to_measure(objects: int) -> str:
    """Returns why there are no records, and the remedy.

    Args:
        objects: Number of annotated objects in the frames.
    """
    if objects:
        return 'No detection matched an object: there is nothing to measure.'
    return f'There is nothing to measure in {UNKNOWN.no_annotation()}'


def scalars_of(table: Table) -> dict[str, float]:
    """Returns the figures by name, as hosts log them: mean, ends of the interval, counts."""
    values: dict[str, float] = {}
    for ((_, target), category, figure), interval in table.cells.items():
        key = f'{target}/{category}/{figure}'
        values[key] = interval.mean
        values[f'{key}_low'], values[f'{key}_high'] = interval.low, interval.high
        values[f'{key}_count'] = interval.count
    return {**values, 'objects': table.counts()['all']}


def write_tables(table: Table, records: Sequence[ObjectRecord], folder: str | os.PathLike) -> str:
    """Writes ``records.json``, ``table.md`` and ``table.csv``; returns the Markdown.

    Raises:
        ResultFileError: If a file cannot be written.
    """
    folder, text = Path(folder), markdown(table)
    save_records(records, folder / 'records.json')
    for name, content in {'table.md': text + '\n', 'table.csv': csv_text(table)}.items():
        with atomic_write(folder / name, f'the table {name}') as file:
            file.write(content.encode())
    return text
