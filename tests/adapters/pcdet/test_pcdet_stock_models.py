"""Stock configurations of the real OpenPCDet with random weights, on a small range."""

import copy

import numpy as np
import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.common.layers import find_layer
from explain3d.adapters.pcdet import explain
from explain3d.adapters.pcdet.black_box import PcdetBlackBox
from explain3d.adapters.pcdet.config import read_config
from explain3d.adapters.pcdet.frames import frames_of
from explain3d.adapters.pcdet.layers import layers
from explain3d.core.black_box import Region
from explain3d.core.errors import NotApplicableError

KITTI = [0, -6.4, -3, 12.8, 6.4, 1]
WAYMO = [-6.4, -6.4, -2, 6.4, 6.4, 4]
NUSCENES = [-9.6, -9.6, -5, 9.6, 9.6, 3]
CASES = {
    'kitti_models/second_multihead': (KITTI, 'stride4'),
    'kitti_models/second_iou': (KITTI, 'stride4'),
    'kitti_models/pointpillar': (KITTI, 'pillars'),
    'kitti_models/pv_rcnn': (KITTI, 'stride4'),
    'kitti_models/PartA2': (KITTI, 'stride4'),
    'kitti_models/voxel_rcnn_car': (KITTI, 'stride4'),
    'waymo_models/centerpoint': (WAYMO, 'stride4'),
    'waymo_models/pv_rcnn_plusplus': (WAYMO, 'stride4'),
    'nuscenes_models/cbgs_pillar0075_res2d_centerpoint': (NUSCENES, 'pillars'),
    'nuscenes_models/cbgs_voxel0075_voxelnext': (NUSCENES, 'stride4'),
    'nuscenes_models/transfusion_lidar': (NUSCENES, 'neck'),
}
TWO_STAGES = ['kitti_models/pv_rcnn', 'kitti_models/PartA2', 'kitti_models/voxel_rcnn_car']


@pytest.fixture(autouse=True, scope='module')
def _real(pcdet_host):
    if not pcdet_host.real:
        pytest.skip('needs the real OpenPCDet: set PCDET_ROOT')


def build(host, name):
    from pcdet.config import EasyDict
    from pcdet.datasets.dataset import DatasetTemplate
    from pcdet.models import build_network

    tools = host.root / 'tools'
    config = EasyDict(copy.deepcopy(read_config(tools / 'cfgs' / f'{name}.yaml', tools)))
    config.DATA_CONFIG.POINT_CLOUD_RANGE = CASES[name][0]
    if 'pointpillar' in name:
        config.DATA_CONFIG.POINT_CLOUD_RANGE = [0, -10.24, -3, 20.48, 10.24, 1]
    reduce(config.MODEL)
    dataset = DatasetTemplate(config.DATA_CONFIG, config.CLASS_NAMES, False, root_path=host.root)
    torch.manual_seed(0)
    return build_network(config.MODEL, len(config.CLASS_NAMES), dataset).eval()


def reduce(model):
    """Fewer boxes, whatever their scores."""
    own = model.DENSE_HEAD.get('POST_PROCESSING', {})
    for part in (model.POST_PROCESSING, own):
        part.update(SCORE_THRESH=0.0) if part else None
    if own:
        own.update(MAX_OBJ_PER_SAMPLE=40)
    for key in ('POST_CENTER_LIMIT_RANGE', 'POST_CENTER_RANGE'):
        if key in own:
            own[key] = [-100.0, -100.0, -100.0, 100.0, 100.0, 100.0]
    if 'NUM_PROPOSALS' in model.DENSE_HEAD:
        model.DENSE_HEAD.NUM_PROPOSALS = 20
    if 'ROI_HEAD' in model:
        model.ROI_HEAD.NMS_CONFIG.TEST.NMS_POST_MAXSIZE = 10
    if 'PFE' in model:
        model.PFE.NUM_KEYPOINTS = 256


def cloud(model, seed, n=1500):
    generator = np.random.default_rng(seed)
    limits = np.asarray(model.dataset.point_cloud_range, np.float32)
    columns = len(model.dataset.point_feature_encoder.src_feature_list)
    points = generator.random((n, columns)).astype(np.float32)
    points[:, :3] = limits[:3] + (limits[3:] - limits[:3]) * points[:, :3]
    half = n // 2
    points[:half, :3] = (limits[:3] + limits[3:]) / 2
    points[:half, :3] += generator.normal(size=(half, 3)) * [2, 2, 0.5]
    return points


@pytest.mark.parametrize('name', CASES)
def test_finite_maps_with_gradients(pcdet_host, name, monkeypatch):
    model = build(pcdet_host, name)
    monkeypatch.setattr(scenes, 'cloud', lambda seed: cloud(model, seed))
    scenes.calibrate(model)
    layer = CASES[name][1]
    assert find_layer(layers(model), layer)
    options = dict(method='ODAM', layer=layer, targets=['all_abs', 'score'])
    options['select'] = {'score_thr': 0.0, 'top_n': 2}
    found = explain(model, cloud(model, 1), **options)
    assert len(found.detections) == 2
    for values in found.maps.saliency.values():
        assert torch.isfinite(values).all()
        assert values.any(1).all()
    if name in TWO_STAGES:
        through = explain(model, cloud(model, 1), through_proposals=True, **options)
        assert torch.equal(through.detections.boxes, found.detections.boxes)
        assert not torch.allclose(through.saliency, found.saliency, rtol=0.05)


#: One-stage detectors; whether a part of the frame can stand for the whole.
ONE_STAGE = {
    'kitti_models/second_multihead': False,
    'kitti_models/second_iou': True,
    'kitti_models/pointpillar': True,
    'waymo_models/centerpoint': True,
    'nuscenes_models/cbgs_pillar0075_res2d_centerpoint': False,
    'nuscenes_models/cbgs_voxel0075_voxelnext': False,
}


@pytest.mark.parametrize('name', ONE_STAGE)
def test_one_stage_detectors_are_black_boxes(pcdet_host, name, monkeypatch):
    model = build(pcdet_host, name)
    monkeypatch.setattr(scenes, 'cloud', lambda seed: cloud(model, seed))
    scenes.calibrate(model)
    (frame,) = frames_of(scenes.batch(model, cloud(model, 1)))
    box = PcdetBlackBox(model)
    (found,) = box.candidates([frame.points], 0.0)
    options = dict(layer=CASES[name][1], targets='score', select={'score_thr': 0.0})
    explained = explain(model, cloud(model, 1), 'RandomMap', **options)
    ours, theirs = (
        torch.cat([d.boxes[:, :6], d.scores[:, None], 10.0 * d.labels[:, None]], 1)
        for d in (found, explained.detections)
    )
    assert len(theirs) > 5
    assert torch.cdist(theirs, ours.cpu(), p=float('inf')).amin(1).max() < 1e-3

    middle = explained.detections.boxes[0, :2].tolist()
    regions = [Region(*middle, 1.5, int(explained.detections.labels[0]))]
    far = (frame.points[:, :2] - frame.points.new_tensor(middle)).norm(dim=1) >= 1.5
    clouds = [frame.points, frame.points[far | (torch.rand(len(far)) < 0.5)], frame.points[far]]
    answers = box.candidates_in(clouds, regions, 0.0, frame.points)
    assert (box.reach() is not None) == ONE_STAGE[name]
    for cloud_, (a,) in zip(clouds, answers, strict=True):
        # Each against a box that has seen no other cloud.
        whole = PcdetBlackBox(model, windows=False)
        ((b,),) = whole.candidates_in([cloud_], regions, 0.0)
        assert len(b) > 0
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', sorted(set(CASES) - set(ONE_STAGE)))
def test_others_are_refused(pcdet_host, name):
    with pytest.raises(NotApplicableError, match='decides what becomes a candidate'):
        PcdetBlackBox(build(pcdet_host, name))
