"""MMDetection3D's info files of the mini world, read back with its own data set class."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')
pytest.importorskip('mmdet3d', reason='the info files need MMDetection3D')

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.mini.build import KittiParameters, build_kitti  # noqa: E402
from explain3d.datasets.mini.kitti import simulate  # noqa: E402
from explain3d.datasets.mmdet3d_infos import make_mmdet3d_infos, prepare_kitti  # noqa: E402

# The import of the host and its just-in-time compiled box operators take most of the time.
pytestmark = pytest.mark.slow

CLASSES = ['Pedestrian', 'Cyclist', 'Car']


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp('mini') / 'kitti'
    parameters = KittiParameters(frames=3, val_frames=1, seed=0, image_step=16)
    return build_kitti(root, parameters, report=lambda text: None)


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
    before = sorted(source.rglob('*'))
    root = prepare_kitti(source, tmp_path_factory.mktemp('work') / 'kitti')
    assert sorted(source.rglob('*')) == before
    return root


def load(root, split):
    import mmdet3d.datasets  # noqa: F401
    from mmdet3d.registry import DATASETS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return DATASETS.build(
            {
                'type': 'KittiDataset',
                'data_root': str(root),
                'ann_file': f'kitti_infos_{split}.pkl',
                'data_prefix': {'pts': 'training/velodyne_reduced', 'img': 'training/image_2'},
                'metainfo': {'classes': CLASSES},
                'modality': {'use_lidar': True, 'use_camera': False},
                'pipeline': [],
            }
        )


def frame_name(info):
    # The host numbers samples by their place in the split.
    return Path(info['lidar_points']['lidar_path']).stem


def test_the_data_set_class_reads_back_the_simulated_boxes(prepared):
    train, val = load(prepared, 'train'), load(prepared, 'val')
    assert (len(train), len(val), len(load(prepared, 'trainval'))) == (2, 1, 3)
    for data, index in ((train, 0), (train, 1), (val, 2)):
        info = data.get_data_info(index if data is train else 0)
        assert frame_name(info) == f'{index:06d}'
        frame = simulate(0, index, step=16)
        wanted = [label for label in frame.labels if label.type in CLASSES]
        boxes = info['ann_info']['gt_bboxes_3d']
        kept = info['ann_info']['gt_labels_3d'] >= 0
        centre = boxes.gravity_center.numpy()[kept]
        assert len(centre) == len(wanted)
        for k, label in enumerate(wanted):
            state = frame.snapshot.objects[label.object_index]
            sensor = frame.snapshot.ego.compose(_lidar_pose())
            box = state.box_in(sensor)
            # The label files hold two decimals.
            np.testing.assert_allclose(centre[k], box[:3], atol=0.012)
            np.testing.assert_allclose(boxes.tensor.numpy()[kept][k, 3:6], box[3:6], atol=0.0051)
            turn = boxes.tensor.numpy()[kept][k, 6] - box[6]
            assert abs((turn + np.pi) % (2 * np.pi) - np.pi) < 0.006


def _lidar_pose():
    from explain3d.datasets.mini.kitti import calibration, sensors

    return sensors(calibration())[0].pose


def test_reduced_clouds_are_the_points_in_view(prepared):
    for name in ('000000', '000002'):
        whole, reduced = (
            np.fromfile(prepared / 'training' / kind / f'{name}.bin', np.float32).reshape(-1, 4)
            for kind in ('velodyne', 'velodyne_reduced')
        )
        # The points were cut to the view already; the host tests with its own rounding.
        assert len(whole) - 20 <= len(reduced) <= len(whole)
        assert {tuple(p) for p in reduced} <= {tuple(p) for p in whole}


def test_the_database_holds_each_objects_points(prepared):
    infos = pickle.loads((prepared / 'kitti_dbinfos_train.pkl').read_bytes())
    assert set(CLASSES) <= set(infos)
    total = 0
    for entries in infos.values():
        for entry in entries:
            points = np.fromfile(prepared / entry['path'], np.float32).reshape(-1, 4)
            assert len(points) == entry['num_points_in_gt']
            half = entry['box3d_lidar'][3:6]
            assert len(points) == 0 or np.abs(points[:, :2]).max() <= np.hypot(*half[:2]) / 2 + 1e-3
            total += len(points)
    assert total > 1000


def test_a_second_call_changes_nothing(prepared, source):
    before = {p: p.stat().st_mtime_ns for p in prepared.rglob('*.pkl')}
    assert len(before) >= 4
    make_mmdet3d_infos(prepared)
    prepare_kitti(source, prepared)
    assert before == {p: p.stat().st_mtime_ns for p in prepared.rglob('*.pkl')}


def test_a_work_folder_of_another_data_set_is_refused(prepared, tmp_path, source):
    (tmp_path / 'training').mkdir()
    (tmp_path / 'training' / 'velodyne').mkdir()
    with pytest.raises(InputError, match='another work folder'):
        prepare_kitti(source, tmp_path)


def test_a_folder_that_is_no_kitti_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'training/velodyne.*make_mini_dataset'):
        make_mmdet3d_infos(tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif(
    'EXPLAIN3D_REAL_DATA' not in os.environ, reason='EXPLAIN3D_REAL_DATA is not set'
)
def test_real_frames_are_prepared_without_touching_them(tmp_path):
    source = Path(os.environ['EXPLAIN3D_REAL_DATA']) / 'kitti-mini'
    root = prepare_kitti(source, tmp_path / 'kitti')
    names = (source / 'ImageSets' / 'val.txt').read_text().split()
    val = load(root, 'val')
    assert [frame_name(val.get_data_info(i)) for i in range(len(val))] == names
    assert not (source / 'training' / 'velodyne_reduced').exists()
