"""Sensor shares from Python, for a BevFusion that OpenPCDet builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ....core.errors import InputError
from ....core.session import frozen_evaluation
from ....lmd import Seed
from ....lmd.detections import SensorShares
from ...common.model_intake import PCDET, require_toolbox
from ..api import batch_of, on_device
from ..detector import unwrap
from .share_decomposer import ShareDecomposer


def sensor_shares(
    model: nn.Module,
    data: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    seeds: str | Sequence[Seed | Mapping[str, Any]] | None = None,
    **settings: Any,
) -> SensorShares | list[SensorShares]:
    """Tells of each box that BevFusion finds which sensor made it.

    Args:
        model: A detector as ``pcdet.models.build_network`` returns it, with its weights; left as
            found. It is evaluated, whatever its mode.
        data: An item of its data set, a sequence of these, or a batch.
        seeds: 'sensors', 'branches', or seeds of your own; see ``proposals.seeds_of``.
        settings: ``rules``, ``mode``, ``blank``, ``score_thr``, ``overlap``: as for
            ``ShareDecomposer``.

    Returns:
        One frame's shares, or a list of them if ``data`` is a sequence or a batch; on the CPU.

    Raises:
        UnknownNameError: If a level, module, rule, mode or modality is unknown.
        NotApplicableError: If the model is no BevFusion.
        InputError: If the data are points alone.

    Examples:
        >>> frame = sensor_shares(model, dataset[0])  # doctest: +SKIP
        >>> frame.parts.shares('logit')  # (K, 3) of camera, LiDAR, bias; doctest: +SKIP
    """
    detector = unwrap(model)
    require_toolbox(detector, PCDET)
    items = data if isinstance(data, (list, tuple)) else [data]
    if not all(isinstance(item, Mapping) for item in items):
        raise InputError('Expected items of the data set, received points without images.')
    many = data is items or 'batch_size' in data
    decomposer = ShareDecomposer(detector, seeds, **settings)
    batch = on_device(batch_of(detector, data), next(detector.parameters()).device)
    with frozen_evaluation(detector):
        _, found = decomposer.decompose(batch)
    return found if many else found[0]
