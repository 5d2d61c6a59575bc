"""The report of sensor shares over a data set of OpenPCDet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ....core.checks import require_whole
from ....core.results import ResultStore
from ....core.session import frozen_evaluation
from ....lmd.detections import SensorShares
from ....lmd.sensor_table import SensorTable, boxes_of, require_edges, table_of
from ....lmd.tags import read_tags
from ...common.frame_names import FrameNames
from ...common.frames import digest_of
from ...common.recorder import require_writable
from ...common.run_folder import FrameClaims, claim_folder, same_name
from ...common.share_report import of_frames, protocol_of, write_report
from ..api import batch_of, on_device
from ..data_facts import facts_of
from ..detector import unwrap
from ..frames import NAMING, REMEDY, name_in
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
    edges, frames = require_edges(edges), require_whole('frames', frames, optional=True)
    detector, known = unwrap(model), {} if tags is None else read_tags(tags)
    decomposer, facts = ShareDecomposer(detector, seeds, **settings), facts_of(dataset)
    folder = Path(out_dir) / 'frames'
    require_writable(folder)
    claim_folder(folder, decomposer.settings, facts.manifest, 'out_dir')
    store = ResultStore(folder, decomposer.settings, on_mismatch='recompute')
    count = len(dataset) if frames is None else min(frames, len(dataset))
    boxes, names = [], []
    naming = facts.frame_names(REMEDY, _LOG)
    for found in _shares(decomposer, detector, dataset, count, store, naming):
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
    names: FrameNames,
) -> Iterator[SensorShares]:
    """Yields the shares of each frame, from its file where there is one of the same inputs."""
    device, claims = next(detector.parameters()).device, FrameClaims()
    for index in range(count):
        batch = batch_of(detector, dataset[index])
        name, inputs = names.name(name_in(batch, 0), index), _digest(batch)
        first = claims.claim(name, f'inputs of digest {inputs}')
        if first != f'inputs of digest {inputs}':
            raise same_name(name, first, f'inputs of digest {inputs}', REMEDY)
        found = _stored(store, name, inputs, decomposer.class_names)
        if found is not None:
            yield found
            continue
        with frozen_evaluation(detector):
            _, (found,) = decomposer.decompose(on_device(batch, device))
        found = replace(found, frame_id=name, info={**found.info, 'inputs': inputs})
        store.save(found)
        yield found
        if (index + 1) % _INTERVAL == 0 or index + 1 == count:
            _LOG.info('Sensor shares: %d of %d frames', index + 1, count)


def _stored(
    store: ResultStore, name: str, inputs: str, classes: tuple[str, ...]
) -> SensorShares | None:
    """Returns a frame's shares from its file, if its inputs are the same, with today's classes."""
    if not store.has(name):
        return None
    found = store.load(name)
    if found.info.get('inputs') != inputs:
        _LOG.warning(
            'Frame %r has a result with other inputs in %s: it is computed again.',
            name, store.folder,
        )  # fmt: skip
        return None
    if found.detections.class_names == classes:
        return found
    found = replace(found, detections=replace(found.detections, class_names=classes))
    store.save(found)
    return found


def _digest(batch: Mapping[str, Any]) -> str:
    """A digest of the numbers that the detector gets; the annotation is no part of it."""

    def counts(key: str, value: Any) -> bool:
        if key in NAMING or key.startswith('gt_'):
            return False
        return isinstance(value, Tensor) or (
            isinstance(value, np.ndarray) and value.dtype.kind in 'fiub'
        )

    return digest_of({key: value for key, value in batch.items() if counts(key, value)})
