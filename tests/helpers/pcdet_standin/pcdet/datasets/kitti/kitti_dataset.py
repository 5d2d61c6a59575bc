"""KITTI's object layout, by OpenPCDet's info files."""

import pickle

import numpy as np

from ...utils import box_utils
from ...utils.calibration_kitti import Calibration
from ..dataset import DatasetTemplate


class KittiDataset(DatasetTemplate):
    def __init__(self, dataset_cfg, class_names, training=True, root_path=None, logger=None):
        super().__init__(dataset_cfg, class_names, training, root_path, logger)
        self.split = dataset_cfg.DATA_SPLIT[self.mode]
        self.root_split_path = self.root_path / ('testing' if self.split == 'test' else 'training')
        paths = [self.root_path / name for name in dataset_cfg.INFO_PATH[self.mode]]
        self.kitti_infos = [
            info for path in paths if path.exists() for info in pickle.loads(path.read_bytes())
        ]
        if logger is not None:
            logger.info(f'Total samples for KITTI dataset: {len(self.kitti_infos)}')

    def get_lidar(self, idx):
        path = self.root_split_path / 'velodyne' / f'{idx}.bin'
        return np.fromfile(path, np.float32).reshape(-1, 4)

    def get_calib(self, idx):
        return Calibration(self.root_split_path / 'calib' / f'{idx}.txt')

    @staticmethod
    def get_fov_flag(pts_rect, img_shape, calib):
        pixels, depth = calib.rect_to_img(pts_rect)
        height, width = img_shape
        inside = (pixels >= 0) & (pixels < np.array([width, height]))
        return inside.all(1) & (depth >= 0)

    def __len__(self):
        return len(self.kitti_infos)

    def __getitem__(self, index):
        info = self.kitti_infos[index]
        frame, shape = info['point_cloud']['lidar_idx'], info['image']['image_shape']
        calib, points = self.get_calib(frame), self.get_lidar(frame)
        sample = {'frame_id': frame, 'calib': calib}
        if 'annos' in info:
            annos = info['annos']
            real = np.array([name != 'DontCare' for name in annos['name']], bool)
            parts = (annos['location'], annos['dimensions'], annos['rotation_y'])
            camera = np.column_stack([part[real] for part in parts]).astype(np.float32)
            sample['gt_names'] = annos['name'][real]
            sample['gt_boxes'] = box_utils.boxes3d_kitti_camera_to_lidar(camera, calib)
        if self.dataset_cfg.FOV_POINTS_ONLY:
            points = points[self.get_fov_flag(calib.lidar_to_rect(points[:, :3]), shape, calib)]
        sample['points'] = points
        sample = self.prepare_data(sample)
        sample['image_shape'] = shape
        return sample

    @staticmethod
    def generate_prediction_dicts(batch_dict, pred_dicts, class_names, output_path=None):
        annos = []
        for index, found in enumerate(pred_dicts):
            boxes, scores, labels = (
                found[f'pred_{part}'].cpu().numpy() for part in ('boxes', 'scores', 'labels')
            )
            calib = batch_dict['calib'][index]
            shape = batch_dict['image_shape'][index].cpu().numpy()
            camera = box_utils.boxes3d_lidar_to_kitti_camera(boxes, calib)
            unknown = np.zeros(len(boxes))
            anno = {
                'name': np.array(class_names)[labels - 1],
                'truncated': unknown,
                'occluded': unknown,
                'alpha': camera[:, 6] - np.arctan2(-boxes[:, 1], boxes[:, 0]),
                'bbox': box_utils.boxes3d_kitti_camera_to_imageboxes(camera, calib, shape),
                'dimensions': camera[:, 3:6],
                'location': camera[:, :3],
                'rotation_y': camera[:, 6],
                'score': scores,
                'boxes_lidar': boxes,
                'frame_id': batch_dict['frame_id'][index],
            }
            annos.append(anno)
            if output_path is not None:
                rows = np.column_stack(
                    [anno['alpha'], anno['bbox'], camera[:, [4, 5, 3, 0, 1, 2, 6]], scores]
                )
                lines = [
                    f'{name} -1 -1 ' + ' '.join(f'{value:.4f}' for value in row)
                    for name, row in zip(anno['name'], rows, strict=True)
                ]
                path = output_path / f'{anno["frame_id"]}.txt'
                path.write_text(''.join(line + '\n' for line in lines))
        return annos

    def evaluation(self, det_annos, class_names, **_):
        """Detections and objects of each class; the real one computes KITTI's AP."""
        if 'annos' not in self.kitti_infos[0]:
            return None, {}
        table = {}
        for name in class_names:
            table[f'{name}_detections'] = sum(int((a['name'] == name).sum()) for a in det_annos)
            table[f'{name}_objects'] = sum(
                int((info['annos']['name'] == name).sum()) for info in self.kitti_infos
            )
        return '\n'.join(f'{key}: {value}' for key, value in table.items()), table
