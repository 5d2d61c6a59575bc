"""A model that decomposes whatever it predicts, from a configuration's ``model`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import MODELS as MMDET3D_MODELS
from torch import nn

from ....lmd import Rules
from ....registry import MODELS
from ..attachment import attachable
from .attachment import DecompositionAttachment
from .decomposer import FrameDecomposer, OutputsSpec, SeedsSpec
from .recorder import DecompositionRecorder


@MODELS.register_module()
def DecomposedModel(  # noqa: N802 - configurations name it like the classes around it
    detector: dict,
    seeds: SeedsSpec = None,
    outputs: OutputsSpec = None,
    rules: Mapping[str, Any] | None = None,
    mode: str = 'production',
    capture: Sequence[str] = (),
    keep: str = 'maps',
    stop: Sequence[str] = (),
    gradcam: Mapping[str, Any] | None = None,
    references: Mapping[str, Mapping[str, Any]] | None = None,
    results: Mapping[str, Any] | None = None,
    resume: bool = True,
    on_error: str = 'raise',
    frame_id: str | None = None,
    **detector_settings: Any,
) -> nn.Module:
    """Builds a model that decomposes each frame it predicts on.

    What comes back *is* the model, with its class and the names of its parameters: it loads plain
    checkpoints, and is wrapped for distributed runs as any other. Each data sample that
    ``test_step`` returns carries a ``decomposition``. Nothing happens in training mode.

    Args:
        detector: Configuration of the model.
        seeds: As in ``LMDHook``, like all that is not described here.
        outputs: As in ``LMDHook``.
        rules: As in ``LMDHook``.
        mode: As in ``LMDHook``.
        capture: As in ``LMDHook``.
        keep: As in ``LMDHook``.
        stop: As in ``LMDHook``.
        gradcam: As in ``LMDHook``.
        references: As in ``LMDHook``.
        results: As in ``Recorder``; without ``dir`` nothing is written.
        resume: As in ``LMDHook``.
        on_error: As in ``LMDHook``.
        frame_id: As in ``LMDHook``.
        detector_settings: Keys that tools set on ``model`` (``train_cfg``); given to the model.

    Raises:
        UnknownNameError: If a rule is unknown. An unknown module is found at the first frame.

    Examples:
        >>> model = dict(type='explain3d.DecomposedModel', detector=dict(type='SimpleBEV', ...))
        ... # doctest: +SKIP
    """
    model = MMDET3D_MODELS.build({**detector, **detector_settings})
    rules = Rules.from_config(rules)

    def start() -> tuple[FrameDecomposer, DecompositionRecorder]:
        decomposer = FrameDecomposer(
            model, seeds, outputs, rules, mode, capture, keep, stop, gradcam, references, frame_id
        )
        options = {'background': False, **(results or {})}
        return decomposer, DecompositionRecorder(decomposer.settings, resume=resume, **options)

    DecompositionAttachment(attachable(model), start, on_error, once=False).attach()
    return model
