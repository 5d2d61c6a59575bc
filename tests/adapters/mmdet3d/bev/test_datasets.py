"""Data sets: keyframes as plain files, written here or real."""

import json

import mmcv
import numpy as np
import pytest

pytest.importorskip('mmdet3d')

from explain3d.adapters.mmdet3d.bev.cameras import CAMERAS
from explain3d.adapters.mmdet3d.bev.geometry import EGO_TO_REFERENCE_AXES
from explain3d.core.errors import InputError
from explain3d.registry import DATASETS

GRID = dict(x=(-50, 50, 100), y=(-3, 1, 4), z=(-50, 50, 100))
LOADERS = dict(
    camera=[
        dict(type='explain3d.LoadSurroundCameras'),
        dict(type='explain3d.ResizeCropCameras', size=(64, 112)),
    ],
    radar=[dict(type='explain3d.LoadRadarArray')],
    lidar=[dict(type='explain3d.LoadLidarSweeps')],
)
REST = [
    dict(type='explain3d.ToReferenceFrame'),
    dict(type='explain3d.VehicleBEVMaps', grid=GRID),
    dict(type='explain3d.PackBEVInputs'),
]


def keyframes(root, *sensors, **options):
    pipeline = [*(t for sensor in sensors for t in LOADERS[sensor]), *REST]
    config = dict(type='explain3d.NuScenesKeyframes', data_root=str(root), pipeline=pipeline)
    return DATASETS.build(config | options)


def write_scene(folder, with_lidar):
    folder.mkdir()
    rng = np.random.default_rng(0)
    pose = np.linalg.inv(EGO_TO_REFERENCE_AXES)
    pose[:3, 3] = 1, 0, 1.5
    matrix = [[80, 0, 80], [0, 80, 45], [0, 0, 1]]
    sensors = {name: dict(K=matrix, sensor2ego=pose.tolist()) for name in CAMERAS}
    sensors['LIDAR_TOP'] = dict(K=None, sensor2ego=np.eye(4).tolist())
    for name in CAMERAS:
        mmcv.imwrite(rng.integers(0, 255, (90, 160, 3), np.uint8), str(folder / f'{name}.jpg'))
    np.save(folder / 'radar_points.npy', rng.normal(0, 10, (20, 6)).astype(np.float32))
    box = dict(x=10, y=3, z=0.8, length_m=4, width_m=2, height_m=1.6, yaw_rad=0)
    kinds = [('car', 'fully_visible', 0), ('pedestrian', 'fully_visible', 9)]
    kinds += [('truck', 'mostly_occluded', 20)]
    boxes = [
        {**box, 'class': kind, 'visibility': level, 'x': 10 + shift} for kind, level, shift in kinds
    ]
    meta = dict(sample_token=folder.name, scene_name=folder.name, timestamp=5_000_000)
    for name, value in [
        ('calib', dict(sensors=sensors)),
        ('detections', boxes),
        ('metadata', meta),
    ]:
        (folder / f'{name}.json').write_text(json.dumps(value))
    if with_lidar:
        rng.normal(0, 10, (30, 5)).astype(np.float32).tofile(folder / 'LIDAR_TOP.bin')


@pytest.fixture
def scenes(tmp_path):
    write_scene(tmp_path / 'scene-b', with_lidar=True)
    write_scene(tmp_path / 'scene-a', with_lidar=False)
    return tmp_path


def test_keyframes_sorted_with_vehicles_only(scenes):
    dataset = keyframes(scenes, 'camera', 'radar')
    assert [dataset[i]['data_samples'].scene for i in range(2)] == ['scene-a', 'scene-b']
    data = dataset[0]
    assert data['inputs']['img'].shape == (6, 3, 64, 112)
    sample = data['data_samples']
    np.testing.assert_allclose(sample.cam2img[0][:2, :3], [[56, 0, 56], [0, 56.889, 32]], rtol=1e-4)
    rows = sample.gt_bev_seg.data[0].nonzero()[:, 0].unique().tolist()
    assert rows == [58, 59, 60, 61, 78, 79, 80, 81], 'the car and the truck, no pedestrian'
    assert (~sample.gt_bev_seg.valid[0]).nonzero()[:, 0].unique().tolist() == [78, 79, 80, 81]


def test_scenes_with_lidar(scenes):
    dataset = keyframes(scenes, 'camera', 'lidar', with_lidar=True)
    assert len(dataset) == 1
    assert dataset[0]['inputs']['points'].shape[1] == 5


def test_blanked_sensors_through_the_data_set(scenes):
    data = keyframes(scenes, 'camera', 'radar', blank_sensors=['camera'])[0]
    assert not data['inputs']['img'].any()
    assert len(data['inputs']['radar']) == 20


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match='EXPLAIN3D_REAL_DATA'):
        keyframes(tmp_path, 'radar')


@pytest.mark.real_data
def test_real_keyframes(real_data):
    """Radar echoes lie on annotated vehicles far more often than beside them by chance."""
    folder = real_data / 'nuscenes-keyframes'
    if not folder.is_dir():
        pytest.skip(f'{folder} is not there: no real keyframes')
    dataset = keyframes(folder, 'radar')
    hits = misses = cells = 0
    for data in dataset:
        seg = data['data_samples'].gt_bev_seg.data[0].numpy()
        radar = data['inputs']['radar'].numpy()
        moving = radar[np.hypot(radar[:, 3], radar[:, 4]) > 2]
        column, row = (np.floor(moving[:, i] + 50).astype(int) for i in (0, 2))
        inside = (column >= 0) & (column < 100) & (row >= 0) & (row < 100)
        there = seg[row[inside], column[inside]] > 0
        hits, misses, cells = hits + there.sum(), misses + (~there).sum(), cells + seg.mean()
    assert len(dataset) == 8
    share = hits / (hits + misses)
    assert hits + misses > 20
    assert share > 10 * cells / 8
