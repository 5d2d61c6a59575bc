"""A data set of KITTI's layout with a handful of clouds, a metric, and configurations for them."""

import pickle
from pathlib import Path

import numpy as np
import tiny_detectors as tiny
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

IDENTITY = np.eye(4).tolist()


def write_dataset(folder, frames=4):
    """Writes point files and the info file that ``KittiDataset`` reads; returns the folder."""
    folder = Path(folder)
    (folder / 'velodyne').mkdir(parents=True)
    infos = []
    for i in range(frames):
        tiny.cloud(i).tofile(folder / f'velodyne/{i:06d}.bin')
        car = dict(
            bbox=[0, 0, 10, 10],
            bbox_label=2,
            bbox_3d=[0.5, 1.0, 6.0, 3.9, 1.5, 1.6, 0.3],
            bbox_label_3d=2,
            depth=6.0,
            center_2d=[5, 5],
            num_lidar_pts=10,
            difficulty=0,
            truncated=0,
            occluded=0,
            alpha=0.0,
            score=0.0,
            index=0,
            group_id=0,
        )
        camera = dict(img_path=f'{i:06d}.png', height=10, width=10, cam2img=IDENTITY)
        camera.update(lidar2img=IDENTITY, lidar2cam=_lidar_to_camera())
        infos.append(
            dict(
                sample_idx=i,
                images=dict(CAM2=camera, R0_rect=IDENTITY),
                lidar_points=dict(
                    num_pts_feats=4,
                    lidar_path=f'{i:06d}.bin',
                    Tr_velo_to_cam=_lidar_to_camera(),
                ),
                instances=[car],
            )
        )
    categories = dict(Pedestrian=0, Cyclist=1, Car=2)
    content = dict(metainfo=dict(categories=categories, dataset='kitti'), data_list=infos)
    (folder / 'infos.pkl').write_bytes(pickle.dumps(content))
    return folder


def _lidar_to_camera():
    return [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


@METRICS.register_module()
class SeenMetric(BaseMetric):
    """Averages the scores of the predictions, and counts what came along as explanations."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            explanation = sample.get('explanation')
            self.results.append(
                dict(
                    score=float(sample['pred_instances_3d']['scores_3d'].mean()),
                    explained=len(explanation.detections) if explanation else 0,
                    saliency=float(explanation.saliency.sum()) if explanation else 0.0,
                )
            )

    def compute_metrics(self, results):
        return {key: float(np.sum([r[key] for r in results])) for key in results[0]}


def config_text(dataset, model=None, hook=None, **extra):
    """Returns a configuration file's text."""
    if model is None:
        model = tiny.second()
    settings = dict(
        default_scope='mmdet3d',
        custom_imports=dict(
            imports=['explain3d.adapters.mmdet3d', 'tiny_run'], allow_failed_imports=False
        ),
        model=model,
        test_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='KittiDataset',
                data_root=str(dataset),
                ann_file='infos.pkl',
                data_prefix=dict(pts='velodyne'),
                pipeline=PIPELINE,
                modality=dict(use_lidar=True, use_camera=False),
                metainfo=dict(classes=tiny.CLASSES),
                box_type_3d='LiDAR',
                test_mode=True,
                serialize_data=False,  # It collects all garbage first, for half a second.
            ),
        ),
        test_evaluator=dict(type='mmengine.SeenMetric'),
        test_cfg=dict(type='TestLoop'),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1),
            visualization=dict(type='Det3DVisualizationHook', draw=False),
        ),
        visualizer=dict(type='Det3DLocalVisualizer', vis_backends=[]),
        log_level='INFO',
        env_cfg=dict(dist_cfg=dict(backend='gloo')),
        **extra,
    )
    if hook is not None:
        settings['custom_hooks'] = [dict(type='explain3d.ExplainerHook', **hook)]
    return '\n'.join(f'{key} = {value!r}' for key, value in settings.items()) + '\n'


PIPELINE = [
    dict(type='LoadPointsFromFile', coord_type='LIDAR', load_dim=4, use_dim=4),
    dict(type='PointsRangeFilter', point_cloud_range=tiny.RANGE),
    dict(type='Pack3DDetInputs', keys=['points']),
]
