"""What all data sets have: feature choice, range, voxels, batches."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from ..config import EasyDict


def voxelize(points, voxel_size, point_range, max_points, max_voxels):
    """First come, first served, as the hosts do: (V, P, C), (V, 3) as z, y, x, and (V,)."""
    low, size = np.asarray(point_range[:3], np.float32), np.asarray(voxel_size, np.float32)
    grid = np.round((np.asarray(point_range[3:], np.float32) - low) / size).astype(np.int64)
    cells = np.floor((points[:, :3] - low) / size).astype(np.int64)
    inside = ((cells >= 0) & (cells < grid)).all(1)
    points, cells = points[inside], cells[inside][:, ::-1]
    keys = np.ravel_multi_index(cells.T, grid[::-1])
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))  # voxels in the order of their first points
    voxel = rank[inverse]
    order = np.argsort(voxel, kind='stable')
    starts = np.searchsorted(voxel[order], np.arange(len(first)))
    slot = np.empty(len(points), np.int64)
    slot[order] = np.arange(len(points)) - starts[voxel[order]]
    kept = (slot < max_points) & (voxel < max_voxels)
    count = min(len(first), max_voxels)
    voxels = np.zeros((count, max_points, points.shape[1]), np.float32)
    voxels[voxel[kept], slot[kept]] = points[kept]
    coords = cells[np.sort(first)[:count]].astype(np.int32)
    return voxels, coords, np.bincount(voxel[kept], minlength=count).astype(np.int32)


class DatasetTemplate(Dataset):
    def __init__(
        self, dataset_cfg=None, class_names=None, training=True, root_path=None, logger=None
    ):
        self.dataset_cfg, self.class_names, self.training = dataset_cfg, class_names, training
        self.logger = logger
        self.root_path = Path(root_path if root_path is not None else dataset_cfg.DATA_PATH)
        self.point_cloud_range = np.array(dataset_cfg.POINT_CLOUD_RANGE, np.float32)
        features = dataset_cfg.POINT_FEATURE_ENCODING.used_feature_list
        self.point_feature_encoder = EasyDict(num_point_features=len(features))
        self.voxel_cfg = next(
            step for step in dataset_cfg.DATA_PROCESSOR if step.NAME == 'transform_points_to_voxels'
        )
        self.voxel_size = self.voxel_cfg.VOXEL_SIZE
        extent = self.point_cloud_range[3:] - self.point_cloud_range[:3]
        self.grid_size = np.round(extent / np.array(self.voxel_size)).astype(np.int64)
        self.depth_downsample_factor = None

    @property
    def mode(self):
        return 'train' if self.training else 'test'

    def prepare_data(self, data_dict):
        if data_dict.get('gt_boxes') is not None:
            names = data_dict.pop('gt_names')
            kept = [i for i, name in enumerate(names) if name in self.class_names]
            labels = np.array([self.class_names.index(names[i]) + 1 for i in kept], np.float32)
            boxes = np.column_stack([data_dict['gt_boxes'][kept].reshape(-1, 7), labels])
            data_dict['gt_boxes'] = boxes.astype(np.float32)
        low, high = self.point_cloud_range[[0, 1]], self.point_cloud_range[[3, 4]]
        flat = data_dict['points'][:, :2]
        data_dict['points'] = data_dict['points'][((flat >= low) & (flat <= high)).all(1)]
        names = ('voxels', 'voxel_coords', 'voxel_num_points')
        made = voxelize(
            data_dict['points'], self.voxel_size, self.point_cloud_range,
            self.voxel_cfg.MAX_POINTS_PER_VOXEL, self.voxel_cfg.MAX_NUMBER_OF_VOXELS[self.mode],
        )  # fmt: skip
        data_dict.update(zip(names, made, strict=True), use_lead_xyz=True)
        return data_dict

    @staticmethod
    def collate_batch(batch_list, _unused=False):
        columns = defaultdict(list)
        for sample in batch_list:
            for key, value in sample.items():
                columns[key].append(value)
        batch = {}
        for key, values in columns.items():
            if key in ('voxels', 'voxel_num_points'):
                batch[key] = np.concatenate(values)
            elif key in ('points', 'voxel_coords'):
                padded = [
                    np.pad(v, ((0, 0), (1, 0)), constant_values=i) for i, v in enumerate(values)
                ]
                batch[key] = np.concatenate(padded)
            elif key == 'gt_boxes':
                most = max(map(len, values))
                batch[key] = np.stack([np.pad(v, ((0, most - len(v)), (0, 0))) for v in values])
            else:
                batch[key] = values if key == 'calib' else np.stack(values)
        batch['batch_size'] = len(batch_list)
        return batch
