"""The functions of the package ``explain3d``: which toolbox a model is of is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .common.model_intake import PCDET, toolbox_of, unwrapped

if TYPE_CHECKING:
    from torch import nn

    from ..core.structures import Explanation
    from ..core.targets import TargetSpec
    from ..lmd.detections import SensorShares
    from ..methods import Explainer


def explain(
    model: nn.Module,
    data: Any,
    method: str | dict | Explainer = 'FFAM',
    targets: TargetSpec | Sequence[TargetSpec] = 'all',
    select: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Explanation | list[Explanation]:
    """Explains what a detector of MMDetection3D or OpenPCDet finds in a point cloud.

    Args:
        model: A detector as ``mmdet3d.apis.init_model`` or ``pcdet.models.build_network`` returns
            it, with its weights, wrapped by ``torch.compile`` or for several devices or not. It is
            evaluated, whatever its mode, and left as found.
        data: A point file (.bin, .npy, .npz, .pcd, .ply), an (N, P) array or tensor of points with
            the columns that the data set's files have (LiDAR frame, metres), or an item of the
            data set; a sequence of these; or a collated batch.
        method: A registered method, ``dict(type=name, ...)`` or an explainer.
        targets: What of each detection to explain.
        select: Which detections: arguments of ``core.selection.Selection``.
        settings: The method's settings, such as ``layer='stride4'``. For a detector of OpenPCDet
            also ``head`` and ``through_proposals``, see ``explain3d.adapters.pcdet.explain``.

    Returns:
        One explanation, or a list of them if ``data`` is a sequence or a batch; on the CPU.

    Raises:
        UnknownNameError: If the method, the layer, a target or an argument is unknown.
        NotApplicableError: If the detector cannot be explained.
        InputError: If the data are of another kind, cannot be read, have other columns than the
            data set's files, or have points that are not finite or none in the range.

    Examples:
        >>> model = init_model('config.py', 'checkpoint.pth', 'cpu')  # doctest: +SKIP
        >>> explanation = explain3d.explain(model, 'frame.bin', method='FFAM', targets='score')
        ... # doctest: +SKIP
        >>> explanation.saliency  # (K, N), a value for each detection and point
        ... # doctest: +SKIP
    """
    if toolbox_of(unwrapped(model, 'predict')) == PCDET:
        from .pcdet.api import explain as host_explain
    else:
        from .mmdet3d.api import explain as host_explain
    return host_explain(model, data, method, targets, select, **settings)


def sensor_shares(
    model: nn.Module, data: Any, seeds: Any = None, **settings: Any
) -> SensorShares | list[SensorShares]:
    """Tells of each box that a fusion detector finds which sensor made it.

    Args:
        model: A fusion detector of MMDetection3D, or a BevFusion of OpenPCDet; left as found.
        data: An item of its data set, or a collated batch.
        seeds: Where components start, as for ``decompose``.
        settings: As for ``sensor_shares`` of ``explain3d.adapters.mmdet3d.lmd`` or
            ``explain3d.adapters.pcdet``.

    Returns:
        One frame's shares for an item of a data set, else a list with one for each of the batch;
        on the CPU.

    Raises:
        UnknownNameError: If a module, rule, mode or modality is unknown.
        NotApplicableError: If a seed is not reached or not given, or the head is of another kind.
        InputError: If the data are no item and no batch, or an output is not finite.

    Examples:
        >>> frame = explain3d.sensor_shares(model, dataset[0])  # doctest: +SKIP
        >>> frame.parts.shares('logit')  # (K, M + 1) of camera, LiDAR, bias; doctest: +SKIP
    """
    if toolbox_of(unwrapped(model, 'predict')) == PCDET:
        from .pcdet.lmd.api import sensor_shares as host_shares
    else:
        from .mmdet3d.lmd.api import sensor_shares as host_shares
    return host_shares(model, data, seeds, **settings)
