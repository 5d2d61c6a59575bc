"""The report of sensor shares over a data set of OpenPCDet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ....core.results import ResultStore
from ....core.session import frozen_evaluation
from ....lmd.detections import SensorShares
from ....lmd.sensor_table import SensorTable, boxes_of, table_of
from ....lmd.tags import read_tags
from ...common.share_report import of_frames, protocol_of, write_report
from ..api import batch_of, on_device
from ..detector import unwrap
from ..frames import frame_id_of
from .share_decomposer import ShareDecomposer

_LOG = logging.getLogger('explain3d')
#: Frames from one line of the log to the next.
_INTERVAL = 10


def sensor_report(
    model: nn.Module,
    dataset: Sequence[Mapping[str, Any]],
    seeds: Any = None,
    out_dir: str | os.PathLike = 'work_dirs/sensors',
    frames: int | None = None,
    edges: Sequence[float] = (0, 20, 40),
    tags: str | os.PathLike | None = None,
    **settings: Any,
) -> SensorTable:
    """Tells which sensor made the boxes of a data set, and writes the report.

    Writes ``report.md``, ``.csv``, ``.json``, ``.png``, and one file a frame in ``frames``: a run
    that was stopped goes on with the frames that are missing.

    Args:
        model: As in ``sensor_shares``.
        dataset: OpenPCDet's data set, in test mode.
        seeds: As in ``sensor_shares``.
        out_dir: Where the files go.
        frames: The first so many; None: all.
        edges: Where ranges begin, metres; the last has no end.
        tags: A file of tags of frames and objects, see ``explain3d.lmd.tags``.
        settings: As in ``sensor_shares``.

    Raises:
        InputError: If no detection has the score, or the file of tags is none.
        ResultFileError: If the folder cannot be written to.
        UnknownNameError: As ``sensor_shares``.
        NotApplicableError: Likewise.
    """
    detector, known = unwrap(model), {} if tags is None else read_tags(tags)
    decomposer = ShareDecomposer(detector, seeds, **settings)
    store = ResultStore(Path(out_dir) / 'frames', decomposer.settings, on_mismatch='recompute')
    count = len(dataset) if frames is None else min(frames, len(dataset))
    boxes, names = [], []
    for found in _shares(decomposer, detector, dataset, count, store):
        names.append(found.frame_id)
        boxes += boxes_of(found, known.get(found.frame_id), decomposer.overlap)
    protocol = of_frames(protocol_of(decomposer.settings), names, known)
    table = table_of(boxes, edges, protocol)
    write_report(table, Path(out_dir))
    return table


def _shares(
    decomposer: ShareDecomposer,
    detector: nn.Module,
    dataset: Sequence[Mapping[str, Any]],
    count: int,
    store: ResultStore,
) -> Iterator[SensorShares]:
    """Yields the shares of each frame, from its file where there is one."""
    device = next(detector.parameters()).device
    for index in range(count):
        batch = batch_of(detector, dataset[index])
        name = frame_id_of(batch, 0)
        if store.has(name):
            yield store.load(name)
            continue
        with frozen_evaluation(detector):
            _, (found,) = decomposer.decompose(on_device(batch, device))
        store.save(found)
        yield found
        if (index + 1) % _INTERVAL == 0 or index + 1 == count:
            _LOG.info('Sensor shares: %d of %d frames', index + 1, count)
