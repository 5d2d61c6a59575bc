"""Anchors, and boxes from what is predicted for them."""

import numpy as np
import torch
from torch import nn

from ...utils import box_coder_utils, common_utils


class AnchorHeadTemplate(nn.Module):
    def __init__(
        self, model_cfg, num_class, class_names, grid_size, point_cloud_range,
        predict_boxes_when_training,
    ):  # fmt: skip
        super().__init__()
        self.model_cfg, self.num_class, self.class_names = model_cfg, num_class, class_names
        self.predict_boxes_when_training = predict_boxes_when_training
        self.use_multihead = model_cfg.get('USE_MULTIHEAD', False)
        self.box_coder = getattr(box_coder_utils, model_cfg.TARGET_ASSIGNER_CONFIG.BOX_CODER)()
        made = [
            self._anchors_of(cfg, grid_size, point_cloud_range)
            for cfg in model_cfg.ANCHOR_GENERATOR_CONFIG
        ]
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.anchors = [anchors.to(device) for anchors in made]
        self.num_anchors_per_location = [a.shape[0] * a.shape[3] * a.shape[4] for a in made]
        self.forward_ret_dict = {}

    @staticmethod
    def _anchors_of(cfg, grid_size, limits):
        """Of one class, (Z, Y, X, sizes, rotations, 7), with geometric centres."""
        axes = []
        for axis in (0, 1):
            cells = int(grid_size[axis] // cfg['feature_map_stride'])
            low, high = float(limits[axis]), float(limits[axis + 3])
            half = (high - low) / cells / 2 if cfg.get('align_center', False) else 0.0
            axes.append(torch.linspace(low + half, high - half, cells))
        heights = torch.tensor(cfg['anchor_bottom_heights'], dtype=torch.float)
        sizes, turns = torch.tensor(cfg['anchor_sizes']), torch.tensor(cfg['anchor_rotations'])
        z, y, x, size, turn = torch.meshgrid(
            heights,
            axes[1],
            axes[0],
            torch.arange(len(sizes)).float(),
            turns.float(),
            indexing='ij',
        )
        size = sizes[size.long()]
        centre = torch.stack([x, y, z + size[..., 2] / 2], -1)
        return torch.cat([centre, size, turn[..., None]], -1)

    def generate_predicted_boxes(self, batch_size, cls_preds, box_preds, dir_cls_preds=None):
        anchors = self.anchors
        if isinstance(anchors, list):
            anchors = torch.cat(anchors, dim=-3)
        anchors = anchors.view(1, -1, self.box_coder.code_size)
        count = anchors.shape[1]
        scores = cls_preds.view(batch_size, count, -1).float()
        boxes = self.box_coder.decode_torch(box_preds.view(batch_size, count, -1), anchors)
        if dir_cls_preds is not None:
            labels = dir_cls_preds.view(batch_size, count, -1).argmax(dim=-1)
            period = 2 * np.pi / self.model_cfg.NUM_DIR_BINS
            offset = self.model_cfg.DIR_OFFSET
            turn = common_utils.limit_period(
                boxes[..., 6] - offset, self.model_cfg.DIR_LIMIT_OFFSET, period
            )
            turn = turn + offset + period * labels.to(boxes.dtype)
            boxes = torch.cat([boxes[..., :6], turn[..., None]], -1)
        return scores, boxes
