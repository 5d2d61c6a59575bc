"""The whole way from a nuScenes-format data set to packed samples, against the devkit."""

from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')
pytest.importorskip('nuscenes')

from nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud, RadarPointCloud
from scipy.spatial import cKDTree

from explain3d.adapters.mmdet3d.bev.radar import RADARS
from explain3d.core.errors import InputError
from explain3d.registry import DATASETS

GRID = dict(x=(-50, 50, 100), y=(-3, 1, 4), z=(-50, 50, 100))
PIPELINE = [
    dict(type='explain3d.LoadSurroundCameras'),
    dict(type='explain3d.ResizeCropCameras', size=(48, 80)),
    dict(type='explain3d.LoadRadarSweeps', sweeps=3, min_distance=0),
    dict(type='explain3d.LoadLidarSweeps', sweeps=2, min_distance=0),
    dict(type='explain3d.ToReferenceFrame'),
    dict(type='explain3d.VehicleBEVMaps', grid=GRID),
    dict(type='explain3d.PackBEVInputs'),
]


def build(root, **options):
    config = dict(
        type='explain3d.NuScenesBEVDataset',
        data_root=str(root),
        ann_file='nuscenes_infos_train_bev.pkl',
        pipeline=PIPELINE,
    )
    return DATASETS.build(config | options)


@pytest.fixture(scope='module')
def tables(bev_nuscenes):
    return NuScenes('v1.0-mini', str(bev_nuscenes), verbose=False)


@pytest.fixture(scope='module')
def samples(bev_nuscenes):
    return [build(bev_nuscenes, test_mode=True)[i] for i in range(2)]


def in_ego(points):
    """Reference axes turned back into ego axes."""
    return np.stack([points[:, 2], -points[:, 0], -points[:, 1]], 1)


def ego_at_keyframe(tables, sample):
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion

    lidar = tables.get('sample_data', sample['data']['LIDAR_TOP'])
    ego = tables.get('ego_pose', lidar['ego_pose_token'])
    calibration = tables.get('calibrated_sensor', lidar['calibrated_sensor_token'])
    lidar2ego = transform_matrix(calibration['translation'], Quaternion(calibration['rotation']))
    return ego, lidar2ego


def test_lidar_and_radar_lie_where_the_devkit_has_them(samples, tables):
    RadarPointCloud.disable_filters()
    try:
        for data in samples:
            sample = tables.get('sample', data['data_samples'].token)
            _, lidar2ego = ego_at_keyframe(tables, sample)
            clouds = [
                (LidarPointCloud, ['LIDAR_TOP'], 2, data['inputs']['points']),
                (RadarPointCloud, RADARS, 3, data['inputs']['radar']),
            ]
            for kind, channels, sweeps, ours in clouds:
                parts = []
                for channel in channels:
                    # The devkit aggregates in the frame of the LiDAR keyframe.
                    cloud, _ = kind.from_file_multisweep(
                        tables, sample, channel, 'LIDAR_TOP', nsweeps=sweeps, min_distance=0
                    )
                    parts.append((lidar2ego[:3, :3] @ cloud.points[:3]).T + lidar2ego[:3, 3])
                theirs, mine = np.concatenate(parts), in_ego(ours[:, :3].double().numpy())
                assert len(mine) == len(theirs) > 20
                assert cKDTree(theirs).query(mine)[0].max() < 1e-3
                assert cKDTree(mine).query(theirs)[0].max() < 1e-3
    finally:
        RadarPointCloud.default_filters()


def test_vehicles_are_drawn_where_they_are_annotated(samples, tables):
    from pyquaternion import Quaternion

    drawn = 0
    for data in samples:
        sample = tables.get('sample', data['data_samples'].token)
        ego, _ = ego_at_keyframe(tables, sample)
        seg = data['data_samples'].gt_bev_seg
        for token in sample['anns']:
            box = tables.get_box(token)
            if not box.name.startswith('vehicle.'):
                continue
            box.translate(-np.array(ego['translation']))
            box.rotate(Quaternion(ego['rotation']).inverse)
            row, column = int(np.floor(box.center[0] + 50)), int(np.floor(-box.center[1] + 50))
            # The nearest cell's centre lies in every box that is wide enough, not in a bicycle's.
            if not (0 <= row < 100 and 0 <= column < 100) or box.wlh[0] < 1.42:
                continue
            drawn += 1
            assert seg.data[0, row, column] == 1
            if tables.get('sample_annotation', token)['visibility_token'] == '1':
                assert not seg.valid[0, row, column]
    assert drawn > 2


def test_training_and_test_see_the_same_and_blanks_pass_through(bev_nuscenes, samples):
    dataset = build(bev_nuscenes, blank_sensors=['radar'])
    assert len(dataset) == 2
    data = dataset[0]
    assert data['inputs']['radar'].shape == (0, 19)
    assert (data['inputs']['img'] == samples[0]['inputs']['img']).all()
    assert data['inputs']['img'].shape == (6, 3, 48, 80)
    assert data['data_samples'].token == samples[0]['data_samples'].token


def test_stock_info_files_are_refused(bev_nuscenes):
    with pytest.raises(InputError, match='run tools/add_bev_infos.py'):
        build(bev_nuscenes, ann_file='nuscenes_infos_train.pkl')


def test_tags_stand_on_the_boxes_that_mmdetection3d_reads(bev_nuscenes, tables, monkeypatch):
    from explain3d.adapters.mmdet3d.bev.tags import make_nuscenes_tags, scene_tags
    from explain3d.lmd.tags import read_tags

    path = make_nuscenes_tags(bev_nuscenes, 'nuscenes_infos_train.pkl')
    assert path == bev_nuscenes / 'nuscenes_infos_train_tags.json'
    found = read_tags(path)
    dataset = DATASETS.build(
        dict(
            type='mmdet3d.NuScenesDataset',
            data_root=str(bev_nuscenes),
            ann_file='nuscenes_infos_train.pkl',
            data_prefix=dict(pts='', sweeps=''),
            pipeline=[],
        )
    )
    levels = {level['level'] for level in tables.visibility}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        stem = PurePosixPath(info['lidar_points']['lidar_path']).stem
        truth = info['ann_info']['gt_bboxes_3d']
        centres = truth.gravity_center.double()
        boxes = torch.cat([centres, truth.tensor[:, 3:7].double()], 1)
        assert len(boxes) > 2
        tags = found[stem].of(boxes, overlap=0.95)
        assert all(each['visibility'] in levels for each in tags)
    # All of these scenes are alike: neither weather nor time tells anything.
    assert set(found[stem].tags) == set()
    scenes = [dict(s, token=str(i)) for i, s in enumerate(tables.scene * 2)]
    scenes[0]['description'] = 'Night, after Rain'
    monkeypatch.setattr(tables, 'scene', scenes)
    tagged = scene_tags(tables)
    assert tagged['0'] == dict(weather='rain', time='night')
    assert tagged['1'] == dict(weather='dry', time='day')


def test_tags_need_an_info_file(bev_nuscenes):
    from explain3d.adapters.mmdet3d.bev.tags import make_nuscenes_tags

    with pytest.raises(InputError, match='create_data.py nuscenes'):
        make_nuscenes_tags(bev_nuscenes, 'nowhere.pkl')
