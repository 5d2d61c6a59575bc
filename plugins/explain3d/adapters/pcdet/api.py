"""Explanations from Python, for detectors that OpenPCDet builds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.session import frozen_evaluation
from ...core.structures import Explanation
from ...core.targets import TargetSpec
from ...methods import Explainer
from ..common.model_intake import PCDET, require_toolbox
from ..common.point_columns import PointColumns
from ..common.point_files import read_points
from ..common.recorder import Recorder
from ..common.spconv_compat import ensure_cpu_backward
from .attachment import Attachment
from .detector import forgotten, unwrap
from .frame_explainer import FrameExplainer
from .reading import columns_of


def explain(
    model: nn.Module,
    data: Any,
    method: str | dict | Explainer = 'FFAM',
    targets: TargetSpec | Sequence[TargetSpec] = 'all',
    select: Mapping[str, Any] | None = None,
    head: str | None = None,
    through_proposals: bool = False,
    **settings: Any,
) -> Explanation | list[Explanation]:
    """Explains what a detector of OpenPCDet finds.

    Args:
        model: A detector as ``pcdet.models.build_network`` returns it, with its weights; left as
            found. It is evaluated, whatever its mode.
        data: An item of its data set, or a point file (.bin, .npy, .npz, .pcd, .ply), an array or
            a tensor of points (N, P) with the columns that the data set gives to ``prepare_data``
            (``src_feature_list``; LiDAR frame, metres), or a sequence of these; or a batch
            (``dataset.collate_batch``).
        method: A registered method, ``dict(type=name, ...)`` or an explainer.
        targets: What of each detection to explain.
        select: Which detections: arguments of ``core.selection.Selection``.
        head: As in ``Tracer``.
        through_proposals: As in ``Tracer``.
        settings: The method's settings, such as ``layer='stride4'``.

    Returns:
        One explanation, or a list of them if ``data`` is a sequence or a batch; on the CPU.

    Raises:
        UnknownNameError: If the method, the layer, a target or an argument is unknown.
        NotApplicableError: If the detector cannot be explained, or is one of MMDetection3D.
        InputError: If the data are of another kind, cannot be read, have other columns than the
            data set's, or have points that are not finite or none in the range.

    Examples:
        >>> model.load_params_from_file('second_7862.pth', logger)  # doctest: +SKIP
        >>> found = explain(model, dataset[0], targets='score')  # doctest: +SKIP
        >>> found.saliency  # (K, N), a value for each detection and point; doctest: +SKIP
    """
    if settings and not isinstance(method, str):
        raise InputError(
            f'Expected settings inside method={method!r}, received {sorted(settings)} beside it: '
            'put them into the dict, or give the method by its name.'
        )
    method = {'type': method, **settings} if settings else method
    ensure_cpu_backward()
    detector = unwrap(model)
    require_toolbox(detector, PCDET)
    frames = FrameExplainer(
        detector, method, targets, select, head=head, through_proposals=through_proposals
    )
    recorder = Recorder(frames.settings)
    many = isinstance(data, (list, tuple)) or (isinstance(data, Mapping) and 'batch_size' in data)
    batch = on_device(batch_of(detector, data), next(detector.parameters()).device)
    found: list[Explanation] = []
    with (
        frozen_evaluation(detector),
        forgotten(detector),
        Attachment(detector, lambda: (frames, recorder), explained=found.append),
        torch.no_grad(),
    ):
        detector(batch)
    return found if many else found[0]


def batch_of(model: nn.Module, data: Any) -> dict[str, Any]:
    """Returns a batch of OpenPCDet's, of arrays."""
    if isinstance(data, Mapping) and 'batch_size' in data:
        return dict(data)
    items = list(data) if isinstance(data, (list, tuple)) else [data]
    items = [_item_of(model, item, i) for i, item in enumerate(items)]
    return model.dataset.collate_batch(items)


def _item_of(model: nn.Module, item: Any, index: int) -> dict[str, Any]:
    """Returns an item of the data set; points are prepared as the data set does."""
    if isinstance(item, Mapping):
        return dict(item)
    columns = _columns_of(model.dataset)
    if isinstance(item, (str, os.PathLike)):
        name, points = Path(item).stem, read_points(_content(item), os.fspath(item), columns)
    elif isinstance(item, (np.ndarray, Tensor)):
        name, points = f'frame_{index:06d}', columns.checked(item, 'points')
    else:
        raise InputError(
            'Expected a point file, points as an array or tensor, an item of the data set or a '
            f'batch, received {type(item).__name__}.'
        )
    return model.dataset.prepare_data({'points': points, 'frame_id': name})


def _content(path: str | os.PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f'The point file {path} cannot be read ({error.strerror or error}): expected a file. '
            'Look at the path; a relative one begins in the working directory.'
        ) from error


def _columns_of(dataset: Any) -> PointColumns:
    names = columns_of(dataset)
    return PointColumns(len(names), 'src_feature_list of the data set', names)


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Turns arrays of numbers into tensors on the device, as ``pcdet.models`` does."""
    moved: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub' and key != 'frame_id':
            value = torch.from_numpy(value).float()
        moved[key] = value.to(device) if isinstance(value, Tensor) else value
    return moved
