"""Decompositions from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ....core.errors import NotApplicableError
from ....core.session import frozen_evaluation
from ....lmd import Decomposition, Rules
from ....lmd.detections import SensorShares
from ....lmd.frame import FrameDecomposition, frame_of
from ....lmd.shares import energy, shares
from ...common.model_intake import MMDET3D, PCDET, require_toolbox, toolbox_of, unwrapped
from ..batches import collated
from ..detector import unwrap
from .decomposer import FrameDecomposer, OutputsSpec, SeedsSpec, check_finite, outputs_of, seeds_of
from .share_decomposer import ShareDecomposer


def decompose(
    model: nn.Module,
    data: Any,
    seeds: SeedsSpec = None,
    outputs: OutputsSpec = None,
    rules: Rules | Mapping[str, Any] | None = None,
    **settings: Any,
) -> FrameDecomposition | list[FrameDecomposition]:
    """Decomposes what a fusion model predicts into its modalities (LMD).

    Args:
        model: A model of MMDetection3D, or any network, in its wrappers or not; left as found.
        data: For a model of MMDetection3D an item of its data set or a collated batch; for any
            other network its argument, or a tuple of its arguments.
        seeds: Where components start: ``lmd.Seed``s or dicts of them, or a word that
            ``model.lmd_seeds`` knows; None: what the model proposes.
        outputs: Where they end: paths of modules, or names with ``lmd.Output``s; None: what the
            model proposes (``model.lmd_outputs``).
        rules: The rules, or a dict of them.
        settings: ``mode``, ``capture``, ``keep``, ``gradcam``, ``references``: as ``LMDHook``; for
            networks outside MMDetection3D the first two.

    Returns:
        One decomposition for an item of a data set, else a list with one for each of the batch; on
        the CPU.

    Raises:
        UnknownNameError: If a module, rule or mode is unknown.
        NotApplicableError: If a seed or output is not reached, or is not given, as a detector of
            OpenPCDet does not propose them.
        InputError: If the data are no batch, or an output is not finite.

    Examples:
        >>> frame = explain3d.decompose(model, dataset[0])  # doctest: +SKIP
        >>> frame.output['radar']  # (1, Z, X), the radar's share of the logits; doctest: +SKIP
        >>> seeds = [explain3d.lmd.Seed('fuse', split=dict(a=8, b=8))]  # doctest: +SKIP
        >>> explain3d.decompose(net, x, seeds, ['head'])  # doctest: +SKIP
    """
    inner = unwrapped(model)
    inner = unwrap(inner) if hasattr(inner, 'test_step') else inner
    if toolbox_of(inner) == PCDET and (seeds is None or outputs is None):
        raise NotApplicableError(
            f'{type(inner).__name__} of OpenPCDet does not propose where to begin and to end: '
            'expected seeds and outputs. Which sensor made the boxes of a BevFusion, '
            'explain3d.sensor_shares(model, dataset[0]) tells.'
        )
    if not hasattr(inner, 'test_step'):
        return _decompose_network(inner, data, seeds, outputs, rules, **settings)
    batch, one = collated(inner, data)
    decomposer = FrameDecomposer(inner, seeds, outputs, rules, **settings)
    with frozen_evaluation(inner):
        _, found = decomposer.decompose(inner.test_step, batch, decomposer.frames(batch))
    return found[0] if one else found


def _decompose_network(
    model: nn.Module,
    data: Any,
    seeds: SeedsSpec,
    outputs: OutputsSpec,
    rules: Rules | Mapping[str, Any] | None,
    mode: str = 'production',
    capture: tuple[str, ...] = (),
) -> list[FrameDecomposition]:
    arguments = data if isinstance(data, tuple) else (data,)
    run = Decomposition(
        model, seeds_of(model, seeds), outputs_of(model, outputs), rules, mode, capture
    )
    with frozen_evaluation(model), torch.no_grad(), run:
        model(*arguments)
    size = min(len(found.value) for found in run.raw_outputs.values())
    frames = [_network_frame(i, run) for i in range(size)]
    run.verification.check()
    return frames


def _network_frame(index: int, run: Decomposition) -> FrameDecomposition:
    outputs = {name: frame_of(found, index) for name, found in run.raw_outputs.items()}
    captured = {name: frame_of(found, index) for name, found in run.raw_captured.items()}
    frame_id = f'frame_{index:06d}'
    for name, found in outputs.items():
        check_finite(found, name, frame_id)
    maps: dict[str, Tensor | None] = {name: energy(found) for name, found in captured.items()}
    return FrameDecomposition(
        frame_id,
        outputs,
        captured=captured,
        shares={name: shares(found) for name, found in {**captured, **outputs}.items()},
        energies={name: found for name, found in maps.items() if found is not None},
        settings={'rules': run.rules.as_dict(), 'mode': run.mode},
    ).to('cpu')


def sensor_shares(
    model: nn.Module, data: Any, seeds: SeedsSpec = None, **settings: Any
) -> SensorShares | list[SensorShares]:
    """Tells of each box that a fusion detector finds which sensor made it.

    Args:
        model: A detector of MMDetection3D; left as found.
        data: An item of its data set, or a collated batch.
        seeds: As for ``decompose``.
        settings: ``rules``, ``mode``, ``blank``, ``sensors``, ``score_thr``, ``overlap``,
            ``class_names``, ``frame_id``: as for ``ShareDecomposer``.

    Returns:
        One frame's shares for an item of a data set, else a list with one for each of the batch;
        on the CPU.

    Raises:
        UnknownNameError: If a module, rule, mode or modality is unknown.
        NotApplicableError: If a seed is not reached or not given, or the head is of another kind.
        InputError: If the data are no batch, or an output is not finite.

    Examples:
        >>> frame = explain3d.sensor_shares(model, dataset[0])  # doctest: +SKIP
        >>> frame.parts.shares('logit')  # (K, M + 1) of camera, LiDAR, bias; doctest: +SKIP
    """
    inner = unwrap(model)
    require_toolbox(inner, MMDET3D)
    batch, one = collated(inner, data)
    decomposer = ShareDecomposer(inner, seeds, **settings)
    with frozen_evaluation(inner):
        _, found = decomposer.decompose(inner.test_step, batch, decomposer.frames(batch))
    return found[0] if one else found
