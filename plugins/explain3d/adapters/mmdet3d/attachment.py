"""Attaching to a detector: every frame that it predicts is explained on the way out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import nn

from ...core.errors import NotApplicableError
from ...core.structures import Explanation
from ..common.attachment import ExplainingAttachment
from ..common.frames import Frame
from .black_box import MMDet3DBlackBox, black_box_of
from .detector import head_of, unwrap

#: Name of the explanation on a data sample, and in the dict that metrics get.
FIELD = 'explanation'


class Attachment(ExplainingAttachment):
    """Shadows one detector's ``predict``: the host's own is called first, then explained.

    The explanation is on each data sample, as ``explanation``, when ``predict`` returns, so that
    metrics get it. What the host predicts is not touched. In training mode nothing happens.

    Arguments as in ``ModelAttachment``; its worker is a ``FrameExplainer``.
    """

    method = 'predict'
    once_only = (
        'one explainer at a time. Use one ExplainerHook or ExplainedModel, and run the test once '
        'for each method.'
    )

    #: The detector for metrics, once there was a frame; in a tuple, as it may be None.
    _black_box: tuple[MMDet3DBlackBox | None] | None = None

    def _shadows(self) -> dict[str, Callable]:
        return {'predict': self._explained_predict, 'aug_test': _refuse_augmentation}

    def _explained_predict(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        return self._guarded(self._explained_batch, inputs, samples, **kwargs)

    def _explained_batch(self, inputs: dict, samples: list, **kwargs: Any) -> list:
        # Tensors made in inference mode could not be part of a graph.
        with torch.inference_mode(False):
            frames = self.worker.frames(inputs, samples)
        return self._predict_and_explain(
            frames,
            lambda: self._host(inputs, samples, **kwargs),
            lambda empty: [
                self._nothing_found(sample)
                if without_points
                else self._host(copy.deepcopy(frame.inputs), [sample], **kwargs)[0]
                for frame, sample, without_points in zip(frames, samples, empty, strict=True)
            ],
        )

    def _nothing_found(self, sample: Any) -> Any:
        """Returns a frame's data sample with a prediction without detections."""
        _, head = head_of(self.model)
        size = max(7, int(getattr(getattr(head, 'bbox_coder', None), 'code_size', 7)))
        none = next(self.model.parameters()).new_zeros(0, size)
        boxes = sample.metainfo.get('box_type_3d', LiDARInstance3DBoxes)(none, box_dim=size)
        sample.pred_instances_3d = InstanceData(
            bboxes_3d=boxes, scores_3d=none[:, 0], labels_3d=none[:, 0].long()
        )
        sample.pred_instances = InstanceData()
        return sample

    def _explain_frame(self, frame: Frame, output: Any, plan: Explanation) -> Explanation:
        return self.worker.explain(self._host, frame, output, plan)

    def _hand_over(self, output: Any, explanation: Explanation) -> None:
        if self._black_box is None:
            self._black_box = (black_box_of(self.model, self._host),)
        (explanation.black_box,) = self._black_box
        setattr(output, FIELD, explanation)

    def _picture_of(self, output: Any) -> str | None:
        path = output.metainfo.get('img_path')
        if not isinstance(path, str):
            return None
        if os.path.isfile(path):
            return path
        if self.recorder.pictures is not None:
            self.recorder.logger.warning(
                f'The camera picture {path} is not there: the sheet is drawn without it. Fetch the '
                "file, or look at the data set's data_prefix."
            )
        return None


def attachable(model: nn.Module) -> nn.Module:
    """Returns the detector to attach to.

    Raises:
        NotApplicableError: If the model does test-time augmentation.
    """
    if isinstance(model, BaseTTAModel) or isinstance(getattr(model, 'module', None), BaseTTAModel):
        _refuse_augmentation()
    return unwrap(model)


def _refuse_augmentation(*_: Any, **__: Any) -> None:
    raise NotApplicableError(
        'Predictions of test-time augmentation are merged from several passes: expected one pass a '
        'frame. Leave out --tta, and flips and scales in the test pipeline.'
    )
