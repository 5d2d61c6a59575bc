"""A detector that explains whatever it predicts, from a configuration's ``model`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import MODELS as MMDET3D_MODELS
from mmengine.logging import MMLogger
from torch import nn

from ...core.checks import require_dict, require_names, require_text
from ...core.targets import TargetSpec
from ...registry import MODELS
from ..common.data_facts import UNKNOWN
from ..common.frame_explainer import checked_explaining
from ..common.outputs import WeightFolders, check_run, checked_outputs
from ..common.recorder import Recorder
from .attachment import Attachment, attachable
from .checkpoints import CheckpointWatch
from .frame_explainer import FrameExplainer
from .frames import REMEDY

#: Arguments of the recorder that have a setting of their own.
_GIVEN = ('settings', 'resume', 'logger')


@MODELS.register_module()
def ExplainedModel(  # noqa: N802 - configurations name it like the classes around it
    detector: dict,
    explainer: str | dict = 'FFAM',
    targets: TargetSpec | Sequence[TargetSpec] = 'all',
    select: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    resume: bool = True,
    on_error: str = 'raise',
    class_names: Sequence[str] | None = None,
    frame_id: str | None = None,
    check_checkpoint: bool = True,
    **detector_settings: Any,
) -> nn.Module:
    """Builds a stock detector that explains each frame it predicts.

    What comes back *is* the detector, with its class and the names of its parameters: it loads
    plain checkpoints, and is wrapped for distributed runs as any other. Each data sample that it
    predicts carries an ``explanation``. Nothing happens in training mode.

    Args:
        detector: Configuration of the detector.
        explainer: As in ``ExplainerHook``.
        targets: As in ``ExplainerHook``.
        select: As in ``ExplainerHook``.
        outputs: As in ``Recorder``; without ``dir`` nothing is written. While the model is trained,
            each validation's weights have a folder of their own inside ``dir``, but for the first.
        resume: As in ``ExplainerHook``.
        on_error: As in ``ExplainerHook``.
        class_names: Names of the classes, for results and ``select``; default those of
            ``dataset_meta``, which ``mmdet3d.apis.init_model`` sets, but a test run does not.
        frame_id: As in ``ExplainerHook``.
        check_checkpoint: Whether to refuse, at the first frame, weights loaded from a checkpoint
            that lacks parameters of the model.
        detector_settings: Keys that tools set on ``model`` (``train_cfg``); given to the detector.

    Raises:
        UnknownNameError: If the method, a target, an argument of the selection or a kind of picture
            is unknown. An unknown layer or class, or a detector that cannot be explained, is found
            at the first frame.
        InputError: If a setting is of the wrong kind or out of its range.
        CheckpointMismatchError: At the first frame, if the checkpoint is another model's.

    Examples:
        >>> model = dict(type='explain3d.ExplainedModel', detector=dict(type='VoxelNet', ...))
        ... # doctest: +SKIP
    """
    # What can be wrong without a model is found now, the rest once there are weights and a device.
    check_run(resume, on_error, check_checkpoint=check_checkpoint)
    settings = checked_explaining(explainer, targets, select)
    names = [target.name for target in settings[1]]
    outputs = checked_outputs('outputs', outputs, Recorder, names, _GIVEN)
    require_names('class_names', class_names, 'Car')
    require_text('frame_id', frame_id, 'sample_idx')
    detector = require_dict('detector', detector, "dict(type='VoxelNet', ...)")
    model = MMDET3D_MODELS.build({**detector, **detector_settings})
    watch = CheckpointWatch(model) if check_checkpoint else None

    folders = WeightFolders(Recorder, outputs)

    def start() -> tuple[FrameExplainer, Recorder]:
        if watch is not None:
            watch.check()
        frames = FrameExplainer(model, *settings, class_names, frame_id)
        logger = MMLogger.get_current_instance()
        frames.names = UNKNOWN.frame_names(REMEDY, logger)
        options = dict(background=False, resume=resume, logger=logger, remedy=REMEDY)
        return frames, folders.recorder(frames.settings, **options)

    Attachment(attachable(model), start, on_error, once=False).attach()
    return model
