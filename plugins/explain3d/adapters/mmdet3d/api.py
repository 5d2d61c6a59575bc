"""Explanations from Python, for whatever ``mmdet3d.apis`` loads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import nn

from ...core.errors import InputError
from ...core.session import frozen_evaluation
from ...core.structures import Explanation
from ...core.targets import TargetSpec
from ...methods import Explainer
from ..common.data_facts import DataFacts
from ..common.frame_names import parts_needed
from ..common.model_intake import MMDET3D, require_toolbox
from ..common.recorder import Recorder
from .attachment import FIELD, Attachment, attachable
from .batches import batches_of
from .frame_explainer import FrameExplainer


def explain(
    model: nn.Module,
    data: Any,
    method: str | dict | Explainer = 'FFAM',
    targets: TargetSpec | Sequence[TargetSpec] = 'all',
    select: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Explanation | list[Explanation]:
    """Explains what a detector of MMDetection3D finds, as ``explain3d.explain`` does.

    Args:
        model: A detector as ``mmdet3d.apis.init_model`` returns it; left as found. It is
            evaluated, whatever its mode.
        data: A point file, an (N, P) array or tensor of points with the columns that the pipeline's
            files have (LiDAR frame, metres), an item of the data set, or a sequence of these; or a
            collated batch, a dict with ``inputs`` and ``data_samples``. Items and batches need no
            configuration of the model.
        method: A registered method, ``dict(type=name, ...)`` or an explainer.
        targets: What of each detection to explain.
        select: Which detections: arguments of ``core.selection.Selection``.
        settings: The method's settings, such as ``layer='stride4'``.

    Returns:
        One explanation, or a list of them if ``data`` is a sequence or a batch; on the CPU. Each
        is named by the stem of its file, by as many folders before it as tell the files apart.

    Raises:
        UnknownNameError: If the method, the layer, a target or an argument is unknown.
        NotApplicableError: If the detector cannot be explained, or is one of OpenPCDet.
        InputError: If the data are of another kind, cannot be read, have other columns than the
            pipeline's files, or have points that are not finite or none in the range.
    """
    if settings and isinstance(method, str):
        method = dict(type=method, **settings)
    elif settings:
        raise InputError(
            f'Expected settings inside method={method!r}, received {sorted(settings)} beside it: '
            'put them into the dict, or give the method by its name.'
        )
    detector = attachable(model)
    require_toolbox(detector, MMDET3D)
    frames = FrameExplainer(detector, method, targets, select, facts=_facts(data))
    recorder = Recorder(frames.settings, logger=MMLogger.get_current_instance())
    batches, many = batches_of(detector, data)
    found: list[Explanation] = []
    with frozen_evaluation(detector), Attachment(detector, lambda: (frames, recorder)):
        for batch in batches:
            with torch.no_grad():
                found += [getattr(sample, FIELD) for sample in detector.test_step(batch)]
    return found if many else found[0]


def _facts(data: Any) -> DataFacts:
    """Returns what tells the frames of one call apart: files of one name by their folders."""
    given = data if isinstance(data, (list, tuple)) else [data]
    paths = [path for one in given for path in _paths(one)]
    return DataFacts(parts=parts_needed(paths))


def _paths(data: Any) -> Iterator[str]:
    """Yields the point files of what the user gave, where they are known."""
    if isinstance(data, (str, os.PathLike)):
        yield os.fspath(data)
    samples = data.get('data_samples', ()) if isinstance(data, Mapping) else ()
    for sample in samples if isinstance(samples, (list, tuple)) else [samples]:
        path = getattr(sample, 'metainfo', {}).get('lidar_path')
        if path is not None:
            yield path
