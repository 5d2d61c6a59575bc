"""What all detectors have: building, loading, choosing detections."""

import os

import torch
from torch import nn

from ...ops.iou3d_nms import iou3d_nms_utils
from ...utils.spconv_utils import find_all_spconv_keys
from .. import backbones_2d, backbones_3d, dense_heads, roi_heads
from ..backbones_2d import map_to_bev
from ..backbones_3d import vfe
from ..model_utils import model_nms_utils


class Detector3DTemplate(nn.Module):
    def __init__(self, model_cfg, num_class, dataset):
        super().__init__()
        self.model_cfg, self.num_class, self.dataset = model_cfg, num_class, dataset
        self.class_names = dataset.class_names
        self.register_buffer('global_step', torch.zeros(1, dtype=torch.long))
        self.module_topology = [
            'vfe', 'backbone_3d', 'map_to_bev_module', 'pfe',
            'backbone_2d', 'dense_head', 'point_head', 'roi_head',
        ]  # fmt: skip

    @property
    def mode(self):
        return 'TRAIN' if self.training else 'TEST'

    def build_networks(self):
        data = self.dataset
        info = {
            'module_list': [],
            'num_point_features': data.point_feature_encoder.num_point_features,
            'grid_size': data.grid_size,
            'point_cloud_range': data.point_cloud_range,
            'voxel_size': data.voxel_size,
        }
        for name in self.module_topology:
            build = getattr(self, f'build_{name}', None)  # no pfe and point_head here
            module = build(info) if build and self._cfg(name) is not None else None
            self.add_module(name, module)
            if module is not None:
                info['module_list'].append(module)
        return info['module_list']

    def _cfg(self, name):
        return self.model_cfg.get(name.removesuffix('_module').upper(), None)

    def build_vfe(self, info):
        cfg = self.model_cfg.VFE
        return vfe.__all__[cfg.NAME](model_cfg=cfg, num_point_features=info['num_point_features'])

    def build_backbone_3d(self, info):
        cfg = self.model_cfg.BACKBONE_3D
        module = backbones_3d.__all__[cfg.NAME](
            model_cfg=cfg, input_channels=info['num_point_features'], grid_size=info['grid_size']
        )
        info['num_point_features'] = module.num_point_features
        info['backbone_channels'] = module.backbone_channels
        return module

    def build_map_to_bev_module(self, info):
        cfg = self.model_cfg.MAP_TO_BEV
        module = map_to_bev.__all__[cfg.NAME](model_cfg=cfg)
        info['num_bev_features'] = module.num_bev_features
        return module

    def build_backbone_2d(self, info):
        cfg = self.model_cfg.BACKBONE_2D
        module = backbones_2d.__all__[cfg.NAME](
            model_cfg=cfg, input_channels=info['num_bev_features']
        )
        info['num_bev_features'] = module.num_bev_features
        return module

    def build_dense_head(self, info):
        cfg = self.model_cfg.DENSE_HEAD
        return dense_heads.__all__[cfg.NAME](
            model_cfg=cfg,
            input_channels=info['num_bev_features'],
            num_class=1 if cfg.CLASS_AGNOSTIC else self.num_class,
            class_names=self.class_names,
            grid_size=info['grid_size'],
            point_cloud_range=info['point_cloud_range'],
            predict_boxes_when_training=self.model_cfg.get('ROI_HEAD', False),
            voxel_size=info['voxel_size'],
        )

    def build_roi_head(self, info):
        cfg = self.model_cfg.ROI_HEAD
        return roi_heads.__all__[cfg.NAME](
            model_cfg=cfg,
            backbone_channels=info['backbone_channels'],
            point_cloud_range=info['point_cloud_range'],
            voxel_size=info['voxel_size'],
            num_class=1 if cfg.CLASS_AGNOSTIC else self.num_class,
        )

    def post_processing(self, batch_dict):
        cfg, recall, found = self.model_cfg.POST_PROCESSING, {}, []
        for index in range(batch_dict['batch_size']):
            boxes, scores = (
                batch_dict['batch_box_preds'][index],
                batch_dict['batch_cls_preds'][index],
            )
            raw = scores
            if not batch_dict['cls_preds_normalized']:
                scores = torch.sigmoid(scores)
            scores, labels = scores.max(dim=-1)
            labels = labels + 1
            if batch_dict.get('has_class_labels', False):
                labels = batch_dict['roi_labels'][index]
            chosen, kept = model_nms_utils.class_agnostic_nms(
                scores, boxes, cfg.NMS_CONFIG, cfg.SCORE_THRESH
            )
            if cfg.OUTPUT_RAW_SCORE:
                kept = raw.max(dim=-1)[0][chosen]
            found.append(
                {'pred_boxes': boxes[chosen], 'pred_scores': kept, 'pred_labels': labels[chosen]}
            )
            counted = boxes if 'rois' in batch_dict else boxes[chosen]
            recall = self.generate_recall_record(
                counted, recall, index, batch_dict, cfg.RECALL_THRESH_LIST
            )
        return found, recall

    @staticmethod
    def generate_recall_record(box_preds, recall_dict, batch_index, data_dict, thresh_list):
        if 'gt_boxes' not in data_dict:
            return recall_dict
        truth = data_dict['gt_boxes'][batch_index]
        truth = truth[truth.any(dim=1)]
        sources = {'rcnn': box_preds}
        if 'rois' in data_dict:
            sources['roi'] = data_dict['rois'][batch_index]
        recall_dict.setdefault('gt', 0)
        recall_dict['gt'] += len(truth)
        for thresh in thresh_list:
            for source in ('roi', 'rcnn'):
                recall_dict.setdefault(f'{source}_{thresh}', 0)
            for source, boxes in sources.items():
                if len(boxes) and len(truth):
                    overlap = iou3d_nms_utils.boxes_iou3d_gpu(boxes[:, :7], truth[:, :7])
                    recall_dict[f'{source}_{thresh}'] += int((overlap.amax(0) > thresh).sum())
        return recall_dict

    def _load_state_dict(self, model_state_disk, *, strict=True):
        own, sparse, loaded = self.state_dict(), find_all_spconv_keys(self), {}
        for name, value in model_state_disk.items():
            if name in sparse and name in own and value.shape != own[name].shape:
                value = value.permute(4, 0, 1, 2, 3)  # of spconv 1
            if name in own and value.shape == own[name].shape:
                loaded[name] = value
        own.update(loaded)  # in place: it notes the versions of the layers' layouts
        self.load_state_dict(loaded if strict else own)
        return own, loaded

    def load_params_from_file(self, filename, logger, to_cpu=False, pre_trained_path=None):
        if not os.path.isfile(filename):
            raise FileNotFoundError
        logger.info(f'==> Loading parameters from checkpoint {filename}')
        given = torch.load(filename, map_location='cpu')['model_state']
        own, loaded = self._load_state_dict(given, strict=False)
        for name in own.keys() - loaded.keys():
            logger.info(f'Not updated weight {name}: {tuple(own[name].shape)}')
        logger.info(f'==> Done (loaded {len(loaded)}/{len(own)})')
