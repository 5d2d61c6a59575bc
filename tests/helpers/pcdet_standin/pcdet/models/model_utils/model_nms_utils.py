"""Suppression that gives indices into what it was given."""

from ...ops.iou3d_nms import iou3d_nms_utils


def class_agnostic_nms(box_scores, box_preds, nms_config, score_thresh=None):
    chosen = box_scores.argsort(descending=True, stable=True)
    if score_thresh is not None:
        chosen = chosen[box_scores[chosen] >= score_thresh]
    chosen = chosen[: nms_config.NMS_PRE_MAXSIZE]
    kept, _ = getattr(iou3d_nms_utils, nms_config.NMS_TYPE)(
        box_preds[chosen, :7], box_scores[chosen], nms_config.NMS_THRESH
    )
    chosen = chosen[kept[: nms_config.NMS_POST_MAXSIZE]]
    return chosen, box_scores[chosen]
