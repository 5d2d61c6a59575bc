"""A model that decomposes whatever it predicts, from a configuration's ``model`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet3d.registry import MODELS as MMDET3D_MODELS
from torch import nn

from ....lmd import Rules
from ....registry import MODELS
from ...common.outputs import WeightFolders, check_run, checked_outputs
from ..attachment import attachable
from ..checkpoints import CheckpointWatch
from .attachment import DecompositionAttachment
from .decomposer import SETTINGS, FrameDecomposer
from .recorder import DecompositionRecorder
from .settings import check_settings


@MODELS.register_module()
def DecomposedModel(  # noqa: N802 - configurations name it like the classes around it
    detector: dict,
    results: Mapping[str, Any] | None = None,
    resume: bool = True,
    on_error: str = 'raise',
    check_checkpoint: bool = True,
    **settings: Any,
) -> nn.Module:
    """Builds a model that decomposes each frame it predicts on.

    What comes back *is* the model, with its class and the names of its parameters: it loads plain
    checkpoints, and is wrapped for distributed runs as any other. Each data sample that
    ``test_step`` returns carries a ``decomposition``. Nothing happens in training mode.

    Args:
        detector: Configuration of the model.
        results: As in ``Recorder``; without ``dir`` nothing is written. While the model is trained,
            each validation's weights have a folder of their own inside ``dir``, but for the first.
        resume: As in ``LMDHook``.
        on_error: As in ``LMDHook``.
        check_checkpoint: Whether to refuse, at the first frame, weights loaded from a checkpoint
            that lacks parameters of the model.
        settings: What is decomposed, and how, as in ``LMDHook``. All other keys, which tools set
            on ``model`` (``train_cfg``), are given to the model.

    Raises:
        UnknownNameError: If a rule, mode or kind of picture is unknown. An unknown module is found
            at the first frame.
        InputError: If a setting is of the wrong kind or out of its range.
        CheckpointMismatchError: At the first frame, if the checkpoint is another model's.

    Examples:
        >>> model = dict(type='explain3d.DecomposedModel', detector=dict(type='SimpleBEV', ...))
        ... # doctest: +SKIP
    """
    given = {name: settings.pop(name) for name in SETTINGS if name in settings}
    check_run(resume, on_error, check_checkpoint=check_checkpoint)
    check_settings(**given)
    results = checked_outputs(
        'results', results, DecompositionRecorder, given=('settings', 'resume', 'logger')
    )
    given['rules'] = Rules.from_config(given.get('rules'))
    model = MMDET3D_MODELS.build({**detector, **settings})
    watch = CheckpointWatch(model) if check_checkpoint else None

    folders = WeightFolders(DecompositionRecorder, results)

    def start() -> tuple[FrameDecomposer, DecompositionRecorder]:
        if watch is not None:
            watch.check()
        decomposer = FrameDecomposer(model, **given)
        recorder = folders.recorder(decomposer.settings, background=False, resume=resume)
        return decomposer, recorder

    DecompositionAttachment(attachable(model), start, on_error, once=False).attach()
    return model
