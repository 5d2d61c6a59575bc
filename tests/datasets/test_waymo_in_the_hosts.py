"""Mini Waymo read by the stock data set classes of MMDetection3D and, where it is, OpenPCDet."""

import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from tests.helpers.pcdet_host import find_host  # noqa: E402

CLASSES = ['Vehicle', 'Pedestrian', 'Cyclist']
# The imports of the hosts take most of the time.
pytestmark = pytest.mark.slow


# ---- MMDetection3D -------------------------------------------------------------------------------


@pytest.fixture
def mmdet3d_set(mini_waymo):
    pytest.importorskip('mmdet3d', reason='needs MMDetection3D')
    import mmdet3d.datasets  # noqa: F401
    from mmdet3d.registry import DATASETS
    from mmengine.registry import DefaultScope

    points = dict(coord_type='LIDAR', load_dim=6, use_dim=5)
    annotations = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
    names = ('FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'SIDE_LEFT', 'SIDE_RIGHT')
    prefix = {f'CAM_{name}': f'training/image_{k}' for k, name in enumerate(names)}

    def build(split, test_mode):
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            return DATASETS.build(
                dict(
                    type='WaymoDataset',
                    data_root=str(mini_waymo / 'kitti_format'),
                    ann_file=f'waymo_infos_{split}.pkl',
                    data_prefix=prefix | dict(pts='training/velodyne', sweeps='training/velodyne'),
                    modality=dict(use_lidar=True, use_camera=True),
                    test_mode=test_mode,
                    pipeline=[
                        dict(type='LoadPointsFromFile', norm_intensity=True, **points),
                        dict(type='LoadMultiViewImageFromFiles', num_views=5),
                        *([] if test_mode else [annotations]),
                        dict(type='Pack3DDetInputs',
                             keys=['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d']),
                    ],
                )
            )  # fmt: skip

    return build


def test_mmdetection3d_loads_what_was_written(mini_waymo, mmdet3d_set):
    dataset = mmdet3d_set('train', test_mode=False)
    assert len(dataset) == 3
    sample = dataset[2]
    folder = mini_waymo / 'kitti_format' / 'training' / 'velodyne'
    raw = np.fromfile(folder / '0000002.bin', np.float32).reshape(-1, 6)
    points = sample['inputs']['points']
    raw[:, 3] = np.tanh(raw[:, 3])
    np.testing.assert_allclose(points.numpy(), raw[:, :5], atol=1e-6)
    assert tuple(sample['inputs']['img'][0].shape[1:]) == (64, 96)
    info = dataset.get_data_info(2)
    earlier = [Path(sweep['lidar_points']['lidar_path']) for sweep in info['lidar_sweeps']]
    assert [path.name for path in earlier] == ['0000001.bin', '0000000.bin']
    assert all(path.exists() for path in earlier)
    boxes = sample['data_samples'].gt_instances_3d.bboxes_3d
    counted = [inside(points.numpy(), box).sum() for box in _geometric(boxes)]
    noted = [instance['num_lidar_pts'] for instance in info['instances']]
    # A point on a face may fall to either side in float32.
    np.testing.assert_allclose(counted, noted, atol=2)
    assert sum(noted) > 400
    labels = sample['data_samples'].gt_instances_3d.labels_3d
    assert set(labels.tolist()) <= {0, 1, 2}
    assert dataset.metainfo['classes'] == ('Car', 'Pedestrian', 'Cyclist')


def inside(points, box, slack=(0.0, 0.0, 0.0)):
    """(N,) whether points lie in a box (7,) about its geometric centre."""
    ahead = np.array([np.cos(box[6]), np.sin(box[6])])
    offset = points[:, :3].astype(np.float64) - box[:3]
    along = offset[:, :2] @ np.stack([ahead, [-ahead[1], ahead[0]]], 1)
    local = np.abs(np.column_stack([along, offset[:, 2]]))
    return (local <= box[3:6] / 2 + slack).all(1)


def _geometric(boxes):
    return np.concatenate([boxes.gravity_center.numpy(), boxes.tensor[:, 3:7].numpy()], 1)


def test_mmdetection3d_evaluates_on_it_without_waymos_tools(mmdet3d_set):
    from explain3d.registry import METRICS

    dataset = mmdet3d_set('val', test_mode=True)
    metric = METRICS.build(dict(type='explain3d.OverlapAP', iou_thr=[0.7]))
    metric.dataset_meta = dataset.metainfo
    for k in range(len(dataset)):
        truth = dataset[k]['data_samples'].eval_ann_info
        found = dict(
            bboxes_3d=truth['gt_bboxes_3d'],
            labels_3d=_tensor(truth['gt_labels_3d']),
            scores_3d=_tensor(np.linspace(1, 0.5, len(truth['gt_labels_3d']))),
        )
        metric.process({}, [dict(pred_instances_3d=found, eval_ann_info=truth)])
    scores = metric.evaluate(size=len(dataset))
    assert scores['mAP_0.70'] == pytest.approx(1, abs=1e-3)


def _tensor(values):
    import torch

    return torch.as_tensor(values)


# ---- OpenPCDet -----------------------------------------------------------------------------------

AUGMENTATION = dict(DISABLE_AUG_LIST=[], AUG_CONFIG_LIST=[])
PROCESSOR = [dict(NAME='mask_points_and_boxes_outside_range', REMOVE_OUTSIDE_BOXES=True)]


@pytest.fixture
def pcdet_set(mini_waymo):
    """Builds OpenPCDet's own WaymoDataset, in the CPU mode where there is no CUDA."""
    host = find_host()
    if not host.real:
        pytest.skip(f'needs the WaymoDataset of a real OpenPCDet; this is {host.name}')
    easydict = pytest.importorskip('easydict', reason='OpenPCDet needs easydict')

    def config(**changes):
        features = ['x', 'y', 'z', 'intensity', 'elongation']
        return easydict.EasyDict(
            PROCESSED_DATA_TAG='waymo_processed_data_v0_5_0',
            POINT_CLOUD_RANGE=[-75.2, -75.2, -2, 75.2, 75.2, 4],
            DATA_SPLIT=dict(train='train', test='val'),
            SAMPLED_INTERVAL=dict(train=1, test=1),
            FILTER_EMPTY_BOXES_FOR_TRAIN=True,
            POINT_FEATURE_ENCODING=dict(
                encoding_type='absolute_coordinates_encoding',
                used_feature_list=features,
                src_feature_list=features,
            ),
            DATA_AUGMENTOR=AUGMENTATION,
            DATA_PROCESSOR=PROCESSOR,
            **changes,
        )

    with host.importable():
        from pcdet.datasets.waymo.waymo_dataset import WaymoDataset

        def build(training, **changes):
            logger = logging.getLogger('pcdet')
            return WaymoDataset(config(**changes), CLASSES, training, mini_waymo, logger)

        yield build


def test_openpcdet_loads_what_was_written(mini_waymo, pcdet_set):
    dataset = pcdet_set(training=False)
    assert len(dataset) == 3
    sample, info = dataset[1], dataset.infos[1]
    folder = mini_waymo / 'waymo_processed_data_v0_5_0' / info['point_cloud']['lidar_sequence']
    raw = np.load(folder / '0001.npy')
    raw = raw[(np.abs(raw[:, :2]) <= 75.2).all(1)]
    np.testing.assert_allclose(sample['points'][:, :3], raw[:, :3])
    np.testing.assert_allclose(sample['points'][:, 3], np.tanh(raw[:, 3]), atol=1e-6)
    annos = info['annos']
    for box in sample['gt_boxes']:
        wanted = np.flatnonzero(np.isclose(annos['location'], box[:3]).all(1))
        assert annos['name'][wanted].tolist() == [CLASSES[int(box[7]) - 1]]
    assert len(sample['gt_boxes']) > 5
    assert len(pcdet_set(training=True)[0]['gt_boxes']) > 5


def test_openpcdet_stacks_earlier_frames(pcdet_set):
    sequence = dict(ENABLED=True, SAMPLE_OFFSET=[-2, 0])
    dataset = pcdet_set(training=False, SEQUENCE_CONFIG=sequence, TRAIN_WITH_SPEED=True)
    dataset.point_feature_encoder.src_feature_list.append('timestamp')
    dataset.point_feature_encoder.used_feature_list.append('timestamp')
    sample = dataset[2]
    np.testing.assert_allclose(np.unique(sample['points'][:, 5]), [0, 0.1, 0.2], atol=1e-6)
    assert sample['gt_boxes'].shape[1] == 10
    # What stands has points from all three moments, and none beside it if the poses are right.
    still = np.hypot(*sample['gt_boxes'][:, 7:9].T) == 0
    checked = 0
    for box in sample['gt_boxes'][still]:
        own = inside(sample['points'], box, (0.1, 0.1, -0.2))
        beside = inside(sample['points'], box, (0.3, 0.3, -0.2)) & ~own
        for time in (0, 0.1, 0.2):
            then = np.isclose(sample['points'][:, 5], time)
            if (own & then).sum() > 30:
                assert (beside & then).sum() < 0.1 * (own & then).sum()
                checked += time > 0
    assert checked > 2


def test_openpcdet_evaluates_on_it(pcdet_set):
    pytest.importorskip('numba')
    dataset = pcdet_set(training=False)

    def detections(lift):
        out = []
        for info in dataset.infos:
            boxes = info['annos']['gt_boxes_lidar'][:, :7].copy()
            boxes[:, 2] += lift
            score = np.linspace(0.5, 0.9, len(boxes))
            out.append(dict(name=info['annos']['name'].copy(), score=score, boxes_lidar=boxes))
        return out

    _, perfect = dataset.evaluation(detections(0), CLASSES, eval_metric='kitti')
    _, lifted = dataset.evaluation(detections(3), CLASSES, eval_metric='kitti')
    names = np.concatenate([info['annos']['name'] for info in dataset.infos])
    for key, name in (('Car_3d/easy_R40', 'Vehicle'), ('Pedestrian_3d/easy_R40', 'Pedestrian')):
        # KITTI samples the recall 41 times, but no more often than there are objects.
        samples = min(41, np.sum(names == name)) - 1
        assert perfect[key] == pytest.approx(100 * samples / 40)
        assert lifted[key] == 0
