"""Explanations from Python, for whatever ``mmdet3d.apis`` loads."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.session import overridden
from ...core.structures import Explanation
from ...core.targets import TargetSpec
from ...methods import Explainer
from ..common.data_facts import DataFacts
from ..common.frame_names import parts_needed
from ..common.recorder import Recorder
from .attachment import FIELD, Attachment, attachable
from .frame_explainer import FrameExplainer

#: What is taken for the path of a file.
_PATH = (str, os.PathLike)


def explain(
    model: nn.Module,
    data: Any,
    method: str | dict | Explainer = 'FFAM',
    targets: TargetSpec | Sequence[TargetSpec] = 'all',
    select: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Explanation | list[Explanation]:
    """Explains what a detector finds in a point cloud.

    Args:
        model: A detector as ``mmdet3d.apis.init_model`` returns it; left as found.
        data: A point file, an (N, P) array or tensor of points as the detector's pipeline loads
            them (LiDAR frame, metres), or a sequence of these; or a collated batch, a dict with
            ``inputs`` and ``data_samples``, for models without a configuration.
        method: A registered method, ``dict(type=name, ...)`` or an explainer.
        targets: What of each detection to explain.
        select: Which detections: arguments of ``core.selection.Selection``.
        settings: The method's settings, such as ``layer='stride4'``.

    Returns:
        One explanation, or a list of them if ``data`` is a sequence or a batch; on the CPU. Each
        is named by the stem of its file, by as many folders before it as tell the files apart.

    Raises:
        UnknownNameError: If the method, the layer, a target or an argument is unknown.
        NotApplicableError: If the detector cannot be explained.
        InputError: If the points are not finite, or there are none.

    Examples:
        >>> model = init_model('config.py', 'checkpoint.pth', 'cpu')  # doctest: +SKIP
        >>> explanation = explain3d.explain(model, 'frame.bin', method='FFAM', targets='score')
        ... # doctest: +SKIP
        >>> explanation.saliency  # (K, N), a value for each detection and point
        ... # doctest: +SKIP
    """
    if settings and isinstance(method, str):
        method = dict(type=method, **settings)
    elif settings:
        raise InputError(
            f'Expected settings inside method={method!r}, received {sorted(settings)} beside it: '
            'put them into the dict, or give the method by its name.'
        )
    detector = attachable(model)
    frames = FrameExplainer(detector, method, targets, select, facts=_facts(data))
    recorder = Recorder(frames.settings, logger=MMLogger.get_current_instance())
    with Attachment(detector, lambda: (frames, recorder)):
        if isinstance(data, Mapping):
            return [getattr(sample, FIELD) for sample in _predict_batch(detector, data)]
        many = isinstance(data, (list, tuple))
        found = [_explain_cloud(detector, c, i) for i, c in enumerate(data if many else [data])]
    return found if many else found[0]


def _facts(data: Any) -> DataFacts:
    """Returns what tells the frames of one call apart: files of one name by their folders."""
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    if samples is not None:
        samples = samples if isinstance(samples, (list, tuple)) else [samples]
        paths = [sample.metainfo.get('lidar_path') for sample in samples]
    else:
        paths = list(data) if isinstance(data, (list, tuple)) else [data]
    return DataFacts(parts=parts_needed(os.fspath(p) for p in paths if isinstance(p, _PATH)))


def _predict_batch(model: nn.Module, data: Mapping[str, Any]) -> list:
    with torch.no_grad():
        return model.test_step(data)


def _explain_cloud(model: nn.Module, cloud: Any, index: int) -> Explanation:
    """Returns what the attachment makes of one cloud; clouds without a name get a number."""
    from mmdet3d.apis import inference_detector

    if not hasattr(model, 'cfg'):
        raise InputError(
            f'{type(model).__name__} has no configuration (model.cfg): expected a detector of '
            'mmdet3d.apis.init_model, or a collated batch for data.'
        )
    cloud = _cloud(cloud)
    # For arrays ``inference_detector`` changes the pipeline of ``model.cfg`` for good.
    with overridden(model, 'cfg', copy.deepcopy(model.cfg)):
        sample, _ = inference_detector(model, cloud)
    explanation = getattr(sample, FIELD)
    if not isinstance(cloud, str):
        explanation.frame_id = f'frame_{index:06d}'
    return explanation


def _cloud(cloud: Any) -> str | np.ndarray:
    """Returns a path or an array of its own, which pipelines may change in place."""
    if isinstance(cloud, (str, os.PathLike)):
        return os.fspath(cloud)
    if isinstance(cloud, Tensor):
        cloud = cloud.detach().cpu().numpy()
    if isinstance(cloud, np.ndarray):
        return np.array(cloud, dtype=np.float32)
    raise InputError(
        f'Expected a point file, an array or a tensor of points, received {type(cloud).__name__}.'
    )
