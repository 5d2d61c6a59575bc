"""Refines a proposal by the sparse features at a grid of points inside it.

The real head gathers each point's neighbourhood by a compiled operator; this one takes the
feature of the voxel the point lies in.
"""

import torch
from torch import nn

from ...utils import common_utils
from .roi_head_template import RoIHeadTemplate


def _layers(inputs, widths):
    layers = []
    for width in widths:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers), inputs


class VoxelRCNNHead(RoIHeadTemplate):
    def __init__(
        self, backbone_channels, model_cfg, point_cloud_range, voxel_size, num_class=1, **_
    ):
        super().__init__(num_class=num_class, model_cfg=model_cfg)
        self.point_cloud_range, self.voxel_size = point_cloud_range, voxel_size
        self.pool_cfg = model_cfg.ROI_GRID_POOL
        channels = sum(backbone_channels[name] for name in self.pool_cfg.FEATURES_SOURCE)
        inputs = channels * self.pool_cfg.GRID_SIZE**3
        self.shared_fc_layer, inputs = _layers(inputs, model_cfg.SHARED_FC)
        self.cls_fc_layers, width = _layers(inputs, model_cfg.CLS_FC)
        self.cls_pred_layer = nn.Linear(width, num_class)
        self.reg_fc_layers, width = _layers(inputs, model_cfg.REG_FC)
        self.reg_pred_layer = nn.Linear(width, self.box_coder.code_size * num_class)

    def get_global_grid_points_of_roi(self, rois, grid_size):
        rois = rois.reshape(-1, rois.shape[-1])
        steps = (torch.arange(grid_size, device=rois.device) + 0.5) / grid_size - 0.5
        grid = torch.cartesian_prod(steps, steps, steps)
        local = grid[None] * rois[:, None, 3:6]
        turned = common_utils.rotate_points_along_z(local, rois[:, 6])
        return turned + rois[:, None, :3], local

    def roi_grid_pool(self, batch_dict):
        rois = batch_dict['rois']
        grid, _ = self.get_global_grid_points_of_roi(rois, self.pool_cfg.GRID_SIZE)
        low = grid.new_tensor([float(value) for value in self.point_cloud_range[:3]])
        cells = ((grid - low) / grid.new_tensor(self.voxel_size)).floor().long()
        frame = torch.arange(len(rois), device=rois.device).repeat_interleave(rois.shape[1])
        pooled = []
        for name in self.pool_cfg.FEATURES_SOURCE:
            tensor = batch_dict['multi_scale_3d_features'][name]
            shape = torch.tensor(tensor.spatial_shape, device=rois.device)
            at = (cells // batch_dict['multi_scale_3d_strides'][name]).flip(-1)
            inside = ((at >= 0) & (at < shape)).all(-1)
            row = torch.full(
                (tensor.batch_size, *tensor.spatial_shape), len(tensor.features), device=rois.device
            )
            row[tensor.indices.long().unbind(1)] = torch.arange(
                len(tensor.features), device=rois.device
            )
            z, y, x = at.where(inside[..., None], torch.zeros_like(at)).unbind(-1)
            chosen = row[frame[:, None], z, y, x].where(
                inside, row.new_tensor(len(tensor.features))
            )
            padded = torch.cat(
                [tensor.features, tensor.features.new_zeros(1, tensor.features.shape[1])]
            )
            pooled.append(padded[chosen])
        return torch.cat(pooled, -1)

    def forward(self, batch_dict):
        self.proposal_layer(batch_dict, self.model_cfg.NMS_CONFIG['TEST'])
        shared = self.shared_fc_layer(self.roi_grid_pool(batch_dict).flatten(1))
        rcnn_cls = self.cls_pred_layer(self.cls_fc_layers(shared))
        rcnn_reg = self.reg_pred_layer(self.reg_fc_layers(shared))
        scores, boxes = self.generate_predicted_boxes(
            batch_dict['batch_size'], batch_dict['rois'], rcnn_cls, rcnn_reg
        )
        batch_dict['batch_cls_preds'], batch_dict['batch_box_preds'] = scores, boxes
        batch_dict['cls_preds_normalized'] = False
        return batch_dict
