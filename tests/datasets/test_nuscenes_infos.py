"""MMDetection3D's info files of mini nuScenes, read back with its own data set class."""

import shutil

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')
pytest.importorskip('mmdet3d', reason='the info files need MMDetection3D')
pytest.importorskip('nuscenes', reason="MMDetection3D's converter needs nuscenes-devkit")

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.mmdet3d_infos import make_nuscenes_infos  # noqa: E402

# The import of the host and its just-in-time compiled box operators take most of the time.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def root(mini_nuscenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('infos') / 'nuscenes'
    shutil.copytree(mini_nuscenes, folder)
    return make_nuscenes_infos(folder, 'v1.0-mini')


def load(root, split):
    import mmdet3d.datasets  # noqa: F401
    from mmdet3d.registry import DATASETS
    from mmengine.registry import DefaultScope

    cameras = ('FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'BACK', 'BACK_LEFT', 'BACK_RIGHT')
    prefix = {f'CAM_{name}': f'samples/CAM_{name}' for name in cameras}
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return DATASETS.build(
            {
                'type': 'NuScenesDataset',
                'data_root': str(root),
                'ann_file': f'nuscenes_infos_{split}.pkl',
                'data_prefix': prefix | {'pts': 'samples/LIDAR_TOP', 'sweeps': 'sweeps/LIDAR_TOP'},
                'modality': {'use_lidar': True, 'use_camera': True},
                'pipeline': [
                    {'type': 'LoadMultiViewImageFromFiles', 'num_views': 6},
                    {'type': 'LoadPointsFromFile', 'coord_type': 'LIDAR', 'load_dim': 5,
                     'use_dim': 5},
                    {'type': 'LoadPointsFromMultiSweeps', 'sweeps_num': 2, 'use_dim': 5,
                     'test_mode': True},
                    {'type': 'LoadAnnotations3D', 'with_bbox_3d': True, 'with_label_3d': True},
                    {'type': 'Pack3DDetInputs',
                     'keys': ['img', 'points', 'gt_bboxes_3d', 'gt_labels_3d']},
                ],
            }
        )  # fmt: skip


def test_the_host_loads_what_its_converter_made(root):
    for split in ('train', 'val'):
        dataset = load(root, split)
        assert len(dataset) == 2
        sample = dataset[1]
        points = sample['inputs']['points']
        assert sample['inputs']['img'].shape == (6, 3, 90, 160)
        # The keyframe and two sweeps before it, 0.25 s apart.
        np.testing.assert_allclose(np.unique(points[:, 4].numpy()), [0, 0.25, 0.5], atol=1e-4)
        truth = sample['data_samples'].gt_instances_3d
        assert len(truth.bboxes_3d) > 10
        assert truth.bboxes_3d.tensor.shape[1] == 9


def test_boxes_and_velocities_are_those_of_the_tables(root):
    from nuscenes.nuscenes import NuScenes
    from pyquaternion import Quaternion

    nusc = NuScenes('v1.0-mini', str(root), verbose=False)
    info = load(root, 'val').get_data_info(1)
    sample = nusc.get('sample', info['token'])
    lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
    _, boxes, _ = nusc.get_sample_data(lidar['token'])
    truth = info['ann_info']['gt_bboxes_3d']
    notes = {b.token: nusc.get('sample_annotation', b.token) for b in boxes}
    # The host drops boxes without LiDAR points.
    kept = [b for b in boxes if notes[b.token]['num_lidar_pts'] > 0]
    assert len(truth) == len(kept)
    order = np.argsort([np.linalg.norm(b.center) for b in kept])
    ours = truth.gravity_center.norm(dim=1).argsort().numpy()
    fast = 0
    for i, j in zip(order, ours, strict=True):
        box, other = kept[i], truth.tensor[j].numpy()
        np.testing.assert_allclose(truth.gravity_center[j].numpy(), box.center, atol=1e-3)
        np.testing.assert_allclose(other[3:6], box.wlh[[1, 0, 2]], atol=1e-4)
        # The heading, whichever way the host counts its yaw.
        heading = np.array([np.cos(other[6]), np.sin(other[6])])
        np.testing.assert_allclose(heading, box.rotation_matrix[:2, 0], atol=0.02)
        if notes[box.token]['prev']:
            pose = nusc.get('ego_pose', lidar['ego_pose_token'])
            turned = Quaternion(pose['rotation']).inverse.rotate(nusc.box_velocity(box.token))
            # Ego axes are x forward, y left; the LiDAR's are x right, y forward.
            np.testing.assert_allclose(other[7:9], [-turned[1], turned[0]], atol=1e-3)
            fast += np.linalg.norm(turned) > 2
    assert fast > 0


def test_points_of_a_box_project_into_pictures(root):
    """Through the host's lidar2img: what is near and in view of a camera is in its picture."""
    info = load(root, 'train').get_data_info(0)
    centres = info['ann_info']['gt_bboxes_3d'].gravity_center.numpy()
    found = np.zeros(len(centres), int)
    for image in info['images'].values():
        lidar2cam, cam2img = np.array(image['lidar2cam']), np.array(image['cam2img'])
        local = centres @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
        u, v, depth = cam2img[:3, :3] @ local.T
        inside = (depth > 1) & (u > 0) & (u < 160 * depth) & (v > 0) & (v < 90 * depth)
        found += inside
    # The six views meet all around, so that nearly every centre is in one or two of them.
    far = np.linalg.norm(centres, axis=1) > 6
    assert far.sum() > 8
    assert (found[far] >= 1).all()
    assert (found <= 2).all()


def test_made_infos_are_kept(root):
    stamps = {p: p.stat().st_mtime_ns for p in root.glob('*.pkl')}
    assert len(stamps) == 3
    make_nuscenes_infos(root, 'v1.0-mini')
    assert {p: p.stat().st_mtime_ns for p in root.glob('*.pkl')} == stamps


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r'lacks .*v1.0-trainval/scene.json'):
        make_nuscenes_infos(tmp_path)
