"""Proposals of the dense head, refined: without a gradient through the proposals."""

import torch
from torch import nn

from ...utils import box_coder_utils, common_utils
from ..model_utils.model_nms_utils import class_agnostic_nms


class RoIHeadTemplate(nn.Module):
    def __init__(self, num_class, model_cfg, **_):
        super().__init__()
        self.num_class, self.model_cfg = num_class, model_cfg
        self.box_coder = getattr(box_coder_utils, model_cfg.TARGET_CONFIG.BOX_CODER)()
        self.forward_ret_dict = None

    @torch.no_grad()
    def proposal_layer(self, batch_dict, nms_config):
        if batch_dict.get('rois', None) is not None:
            return batch_dict
        boxes, scores = batch_dict['batch_box_preds'], batch_dict['batch_cls_preds']
        shape = (len(boxes), nms_config.NMS_POST_MAXSIZE)
        rois, roi_scores = boxes.new_zeros(*shape, boxes.shape[-1]), boxes.new_zeros(shape)
        roi_labels = boxes.new_zeros(shape, dtype=torch.long)
        for index in range(len(boxes)):
            best, labels = scores[index].max(dim=1)
            chosen, _ = class_agnostic_nms(best, boxes[index], nms_config)
            rois[index, : len(chosen)] = boxes[index][chosen]
            roi_scores[index, : len(chosen)] = best[chosen]
            roi_labels[index, : len(chosen)] = labels[chosen] + 1
        batch_dict.update(rois=rois, roi_scores=roi_scores, roi_labels=roi_labels)
        batch_dict['has_class_labels'] = scores.shape[-1] > 1
        return batch_dict

    def generate_predicted_boxes(self, batch_size, rois, cls_preds, box_preds):
        """Scores (B, R, C) and boxes (B, R, 7): offsets are in each proposal's own frame."""
        flat = rois.reshape(-1, rois.shape[-1])
        local = torch.cat([torch.zeros_like(flat[:, :3]), flat[:, 3:6], 0 * flat[:, 6:]], -1)
        boxes = self.box_coder.decode_torch(box_preds.view(len(flat), -1), local.detach())
        turned = common_utils.rotate_points_along_z(boxes[:, None], flat[:, 6])[:, 0]
        heading = turned[:, 6:7] + flat[:, 6:7]
        boxes = torch.cat([turned[:, :3] + flat[:, :3], turned[:, 3:6], heading], -1)
        return cls_preds.view(batch_size, -1, cls_preds.shape[-1]), boxes.view(batch_size, -1, 7)
