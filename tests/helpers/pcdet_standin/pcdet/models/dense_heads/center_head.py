"""Heat maps of centres, and what is predicted at their peaks."""

import copy

import torch
from torch import nn

from ..model_utils import centernet_utils, model_nms_utils


def _conv(inputs, outputs, bias):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class SeparateHead(nn.Module):
    def __init__(self, input_channels, sep_head_dict, use_bias, norm_func):
        super().__init__()
        self.sep_head_dict = sep_head_dict
        for name, cfg in sep_head_dict.items():
            layers = [
                nn.Sequential(
                    _conv(input_channels, input_channels, use_bias),
                    norm_func(input_channels),
                    nn.ReLU(),
                )
                for _ in range(cfg['num_conv'] - 1)
            ]
            layers.append(_conv(input_channels, cfg['out_channels'], True))
            if name == 'hm':
                nn.init.constant_(layers[-1].bias, -2.19)
            setattr(self, name, nn.Sequential(*layers))

    def forward(self, x):
        return {name: getattr(self, name)(x) for name in self.sep_head_dict}


class CenterHead(nn.Module):
    def __init__(
        self, model_cfg, input_channels, num_class, class_names, grid_size, point_cloud_range,
        voxel_size, predict_boxes_when_training=True,
    ):  # fmt: skip
        super().__init__()
        self.model_cfg, self.num_class, self.class_names = model_cfg, num_class, class_names
        self.grid_size, self.voxel_size = grid_size, voxel_size
        self.point_cloud_range = point_cloud_range
        self.feature_map_stride = model_cfg.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE
        self.class_names_each_head = [
            [name for name in head if name in class_names]
            for head in model_cfg.CLASS_NAMES_EACH_HEAD
        ]
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.class_id_mapping_each_head = [
            torch.tensor([class_names.index(name) for name in head], device=device)
            for head in self.class_names_each_head
        ]

        def norm(channels):
            return nn.BatchNorm2d(
                channels, eps=model_cfg.get('BN_EPS', 1e-5), momentum=model_cfg.get('BN_MOM', 0.1)
            )

        width, bias = model_cfg.SHARED_CONV_CHANNEL, model_cfg.get('USE_BIAS_BEFORE_NORM', False)
        self.shared_conv = nn.Sequential(_conv(input_channels, width, bias), norm(width), nn.ReLU())
        self.separate_head_cfg, self.heads_list = model_cfg.SEPARATE_HEAD_CFG, nn.ModuleList()
        for names in self.class_names_each_head:
            branches = copy.deepcopy(self.separate_head_cfg.HEAD_DICT)
            branches['hm'] = {'out_channels': len(names), 'num_conv': model_cfg.NUM_HM_CONV}
            self.heads_list.append(SeparateHead(width, branches, bias, norm))
        self.predict_boxes_when_training = predict_boxes_when_training
        self.forward_ret_dict = {}

    def generate_predicted_boxes(self, batch_size, pred_dicts):
        cfg, found = self.model_cfg.POST_PROCESSING, [[] for _ in range(batch_size)]
        limit = pred_dicts[0]['hm'].new_tensor(cfg.POST_CENTER_LIMIT_RANGE)
        for head, raw in enumerate(pred_dicts):
            decoded = centernet_utils.decode_bbox_from_heatmap(
                heatmap=raw['hm'].sigmoid(),
                rot_cos=raw['rot'][:, :1],
                rot_sin=raw['rot'][:, 1:],
                center=raw['center'],
                center_z=raw['center_z'],
                dim=raw['dim'].exp(),
                vel=raw.get('vel'),
                point_cloud_range=self.point_cloud_range,
                voxel_size=self.voxel_size,
                feature_map_stride=self.feature_map_stride,
                K=cfg.MAX_OBJ_PER_SAMPLE,
                circle_nms=False,
                score_thresh=cfg.SCORE_THRESH,
                post_center_limit_range=limit,
            )
            for frame, boxes in zip(found, decoded, strict=True):
                labels = self.class_id_mapping_each_head[head][boxes['pred_labels'].long()]
                chosen, scores = model_nms_utils.class_agnostic_nms(
                    boxes['pred_scores'], boxes['pred_boxes'], cfg.NMS_CONFIG
                )
                frame.append((boxes['pred_boxes'][chosen], scores, labels[chosen] + 1))
        names = ('pred_boxes', 'pred_scores', 'pred_labels')
        return [
            {
                name: torch.cat(parts)
                for name, parts in zip(names, zip(*frame, strict=True), strict=True)
            }
            for frame in found
        ]

    def forward(self, data_dict):
        x = self.shared_conv(data_dict['spatial_features_2d'])
        raw = self.forward_ret_dict['pred_dicts'] = [head(x) for head in self.heads_list]
        data_dict['final_box_dicts'] = self.generate_predicted_boxes(data_dict['batch_size'], raw)
        return data_dict
