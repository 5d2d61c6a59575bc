"""OpenPCDet's info files, against the simulated truth and against what OpenPCDet itself writes."""

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.mini.build import KittiParameters, build_kitti  # noqa: E402
from explain3d.datasets.mini.kitti import calibration, sensors, simulate  # noqa: E402
from explain3d.datasets.pcdet_infos import make_pcdet_infos  # noqa: E402
from tests.helpers.pcdet_host import find_host  # noqa: E402

CLASSES = ['Car', 'Pedestrian', 'Cyclist']


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('mini') / 'kitti'
    parameters = KittiParameters(frames=3, val_frames=1, seed=0, image_step=16)
    return make_pcdet_infos(build_kitti(root, parameters, report=lambda text: None))


def load(root, split):
    return pickle.loads((root / f'pcdet_infos_{split}.pkl').read_bytes())


def test_boxes_and_points_are_the_simulated_ones(prepared):
    lidar = sensors(calibration())[0].pose
    for info, index in zip(load(prepared, 'trainval'), range(3), strict=True):
        assert info['point_cloud']['lidar_idx'] == f'{index:06d}'
        assert info['image']['image_shape'].tolist() == [375, 1242]
        frame, annos = simulate(0, index, step=16), info['annos']
        assert annos['name'].tolist() == [label.type for label in frame.labels]
        objects = [label for label in frame.labels if label.type != 'DontCare']
        assert len(objects) > 3
        for k, label in enumerate(objects):
            pose = frame.snapshot.ego.compose(lidar)
            box = frame.snapshot.objects[label.object_index].box_in(pose)
            found = annos['gt_boxes_lidar'][k]
            np.testing.assert_allclose(found[:3], box[:3], atol=0.012)  # files hold two decimals
            np.testing.assert_allclose(found[3:6], box[3:6], atol=0.0051)
            assert abs(np.sin(found[6] - box[6])) < 0.006
            assert np.cos(found[6] - box[6]) > 0
        # Rounded boxes gain or lose points at their faces, where the surfaces are.
        counts = annos['num_points_in_gt']
        hits = np.array([label.points for label in objects])
        assert np.corrcoef(counts[: len(objects)], hits)[0, 1] > 0.99
        assert (counts[len(objects) :] == -1).all()
        assert annos['index'].tolist() == [
            k if k < len(objects) else -1 for k in range(len(frame.labels))
        ]


def test_difficulty_follows_the_benchmark(prepared):
    annos = load(prepared, 'trainval')[0]['annos']
    height = annos['bbox'][:, 3] - annos['bbox'][:, 1] + 1
    for level, tall, cut, hidden in zip(
        annos['difficulty'], height, annos['truncated'], annos['occluded'], strict=True
    ):
        fits = [
            tall >= least and cut <= part and hidden <= grade
            for least, part, grade in ((40, 0.15, 0), (25, 0.3, 1), (25, 0.5, 2))
        ]
        assert level == (fits.index(True) if any(fits) else -1)


def test_splits(prepared):
    assert len(load(prepared, 'train')) == 2
    assert [i['image']['image_idx'] for i in load(prepared, 'val')] == ['000002']
    assert not (prepared / 'pcdet_infos_test.pkl').exists()


def test_a_frame_without_objects(prepared, tmp_path):
    work = copy_of(prepared, tmp_path)
    (work / 'training' / 'label_2' / '000002.txt').write_text('')
    annos = load(make_pcdet_infos(work), 'val')[0]['annos']
    assert annos['gt_boxes_lidar'].shape == (0, 7)
    assert annos['bbox'].shape == (0, 4)
    assert all(len(value) == 0 for value in annos.values())


def copy_of(root, folder):
    import shutil

    return Path(shutil.copytree(root, folder / 'kitti'))


@pytest.mark.parametrize(
    ('kind', 'text', 'match'),
    [
        ('calib', 'P2: 1 2 3\n', r"calibration with \['P2'.*000002.txt"),
        ('label_2', 'Car 0 0 0\n', '15 columns.*000002.txt'),
        ('label_2', None, 'after all objects'),
    ],
)
def test_damaged_files(prepared, tmp_path, kind, text, match):
    work = copy_of(prepared, tmp_path)
    path = work / 'training' / kind / '000002.txt'
    first = path.read_text().splitlines()[0]
    care = 'DontCare' + ' -1' * 14
    path.write_text(text if text is not None else f'{care}\n{first}\n')
    with pytest.raises(InputError, match=match):
        make_pcdet_infos(work)


def test_a_folder_that_is_no_kitti_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'training/velodyne.*make_mini_dataset'):
        make_pcdet_infos(tmp_path)


def compare_with_the_host(root):
    with find_host().importable():
        from pcdet.config import EasyDict
        from pcdet.datasets.kitti.kitti_dataset import KittiDataset

        config = EasyDict(
            DATA_SPLIT={'test': 'trainval'}, INFO_PATH={'test': []}, DATA_PROCESSOR=[],
            POINT_CLOUD_RANGE=[0, -40, -3, 70.4, 40, 1],
            POINT_FEATURE_ENCODING={
                'encoding_type': 'absolute_coordinates_encoding',
                'used_feature_list': list('xyz'), 'src_feature_list': list('xyz'),
            },
        )  # fmt: skip
        data = KittiDataset(config, CLASSES, training=False, root_path=root)
        theirs = data.get_infos(num_workers=1)
    for mine, other in zip(load(root, 'trainval'), theirs, strict=True):
        assert_equal(mine, other)


def assert_equal(mine, other, path=''):
    assert type(mine) is type(other), path
    if isinstance(mine, dict):
        assert list(mine) == list(other), path
        for key in mine:
            assert_equal(mine[key], other[key], f'{path}/{key}')
    elif path == '/annos/gt_boxes_lidar':
        # OpenPCDet turns the centres in float32, up to 80 m: a few roundings of 4e-6.
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, atol=2e-5, rtol=0)
    elif isinstance(mine, np.ndarray):
        np.testing.assert_array_equal(mine, other, path, strict=True)
    else:
        assert mine == other, path


@pytest.mark.skipif('not find_host().real', reason='no OpenPCDet: PCDET_ROOT is not set')
def test_equal_to_what_openpcdet_writes(prepared):
    compare_with_the_host(prepared)


@pytest.mark.real_data
@pytest.mark.skipif('not find_host().real', reason='no OpenPCDet: PCDET_ROOT is not set')
def test_equal_to_what_openpcdet_writes_of_real_frames(real_data, tmp_path):
    from explain3d.datasets.kitti_layout import link_kitti

    compare_with_the_host(make_pcdet_infos(link_kitti(real_data / 'kitti-mini', tmp_path / 'w')))
