"""Whether a detector reports logits as scores (``POST_PROCESSING.OUTPUT_RAW_SCORE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .detector import head_of
from .heads import candidates_class


def reports_logits(model: nn.Module, output: Mapping[str, Tensor]) -> bool:
    """Returns whether the scores of a prediction are logits.

    OpenPCDet's template obeys the option, unless classes are suppressed one by one
    (``MULTI_CLASSES_NMS``). Detectors whose head suppresses (CenterPoint, VoxelNeXt, TransFusion)
    do not look at it, nor does SECOND-IoU with the score of its dense head. Of a detector with a
    ``post_processing`` of its own, scores outside of [0, 1] are logits.

    Args:
        model: The detector, without wrappers.
        output: What it returned for a frame.
    """
    settings: Any = getattr(model, 'model_cfg', {}).get('POST_PROCESSING', {})
    if not settings.get('OUTPUT_RAW_SCORE', False) or 'pred_cls_scores' in output:
        return False
    if settings.get('NMS_CONFIG', {}).get('MULTI_CLASSES_NMS', False):
        return False
    if candidates_class(head_of(model)[1]).suppresses:
        return False
    if type(model).post_processing.__qualname__ == 'Detector3DTemplate.post_processing':
        return True
    scores = output['pred_scores']
    return bool(((scores < 0) | (scores > 1)).any())
