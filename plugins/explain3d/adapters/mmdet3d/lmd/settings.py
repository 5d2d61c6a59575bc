"""Settings of a decomposition, checked before there is a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from ....core.checks import (
    require_choice,
    require_dict,
    require_flag,
    require_known,
    require_names,
    require_text,
    require_whole,
)
from ....core.errors import InputError
from ....lmd import Output, Rules, Seed
from ....lmd.decomposition import MODES
from ....lmd.seeds import declared_seeds
from .batch import BatchFrame

#: What is kept of captured layers: shares only, also where in the map they lie, or all.
KEEP = ('shares', 'maps', 'full')
#: Regions whose score Grad-CAM explains.
REGIONS = ('predicted', 'annotated')

#: What they look like, for messages.
REFERENCES = "{'camera only': dict(config='camera.py', checkpoint='camera.pth')}"

_MANY = (Mapping, list, tuple)

SeedsSpec = str | Sequence[Seed | Mapping[str, Any]] | None
OutputsSpec = Sequence[str] | Mapping[str, Any] | None


class GradCAMSpec:
    """Which class activation maps to make.

    Args:
        layers: Paths of modules.
        modalities: Those that get a map; None: all.
        region: ``'predicted'`` or ``'annotated'``: cells whose score is explained.
        whole: Whether Seg-Grad-CAM, of all modalities together, stands beside them.

    Raises:
        UnknownNameError: If the region is unknown.
        InputError: If a setting is of the wrong kind.
    """

    def __init__(
        self,
        layers: Sequence[str],
        modalities: Sequence[str] | None = None,
        region: str = 'predicted',
        whole: bool = True,
    ) -> None:
        require_choice('region', region, REGIONS)
        require_flag('whole', whole)
        require_names('layers', layers, 'decoder.layer2', optional=False)
        require_names('modalities', modalities, 'camera')
        self.layers, self.region, self.whole = tuple(layers), region, whole
        self.modalities = None if modalities is None else tuple(modalities)

    def region_of(self, frames: Sequence[BatchFrame]) -> Callable[[Tensor], Tensor] | Tensor:
        """Returns (B, Z, X) bool, or a function of the output that returns it."""
        if self.region == 'predicted':
            return lambda output: output[:, 0] > 0
        truths = [frame.truth()[0] for frame in frames]
        if any(truth is None for truth in truths):
            raise InputError(
                "Expected annotated frames for region='annotated', received frames without "
                "gt_bev_seg: choose region='predicted', or a pipeline that makes the ground truth."
            )
        return torch.stack(truths) > 0


def gradcam_of(gradcam: Mapping[str, Any] | None) -> GradCAMSpec | None:
    """Returns what a configuration says of class activation maps; None of None.

    Raises:
        UnknownNameError: If a key or the region is unknown.
        InputError: If a setting is missing or of the wrong kind.
    """
    if gradcam is None:
        return None
    gradcam = require_dict('gradcam', gradcam, "dict(layers=['decoder.layer2'])")
    require_known('gradcam', gradcam, inspect.signature(GradCAMSpec).parameters)
    return GradCAMSpec(**{'layers': None, **gradcam})


def check_output_spec(outputs: OutputsSpec) -> None:
    """Refuses outputs that are wrong whatever the model.

    Args:
        outputs: As in ``FrameDecomposer``.

    Raises:
        UnknownNameError: If a key of an output is unknown.
        InputError: If they are of the wrong kind.
    """
    if outputs is None or isinstance(outputs, str):
        return
    named = isinstance(outputs, Mapping)
    kinds = (str, Output, Mapping) if named else (str, Output)
    each = list(outputs.values() if named else outputs) if isinstance(outputs, _MANY) else [None]
    if not each or not all(isinstance(output, kinds) for output in each):
        raise InputError(
            f'Expected outputs as paths of modules, or a dict of them by name, received '
            f"{outputs!r}: write ['bbox_head'], or {{'heatmap': dict(module='bbox_head')}}."
        )
    for output in each:
        if isinstance(output, Mapping):
            require_known('an output', output, [f.name for f in fields(Output)])
            require_text('module', output.get('module'), 'bbox_head', optional=False)
            require_whole('call', output.get('call'), least=0, optional=True)


def check_settings(
    keep: str = 'maps',
    mode: str = 'production',
    capture: Sequence[str] = (),
    stop: Sequence[str] = (),
    frame_id: str | None = None,
    **others: Any,
) -> None:
    """Refuses settings of a decomposition that are wrong whatever the model.

    Args:
        keep: As in ``FrameDecomposer``.
        mode: As in ``FrameDecomposer``.
        capture: As in ``FrameDecomposer``.
        stop: As in ``FrameDecomposer``.
        frame_id: As in ``FrameDecomposer``.
        others: Settings ``seeds``, ``rules``, ``gradcam``, ``references`` and ``outputs``.

    Raises:
        UnknownNameError: If a word or a key is unknown.
        InputError: If a setting is of the wrong kind or out of its range.
    """
    require_choice('keep', keep, KEEP)
    require_choice('mode', mode, MODES)
    require_names('capture', capture, 'fuser', optional=False)
    require_names('stop', stop, 'decoder', optional=False)
    require_text('frame_id', frame_id, 'token')
    gradcam_of(others.get('gradcam'))
    Rules.from_config(others.get('rules'))
    declared_seeds(others.get('seeds'))
    check_output_spec(others.get('outputs'))
    references = require_dict('references', others.get('references'), REFERENCES)
    for name, spec in references.items():
        require_known(f'the reference {name!r}', spec, ('config', 'checkpoint', 'field'))
