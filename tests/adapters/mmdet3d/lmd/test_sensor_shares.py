"""Which sensor made which part of a detection: with a center head and with an anchor head."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d')

import explain3d
from explain3d.adapters.common.shares import effect_of
from explain3d.adapters.mmdet3d.frames import detections_of
from explain3d.adapters.mmdet3d.lmd.readings import readings_of
from explain3d.adapters.mmdet3d.lmd.share_decomposer import ShareDecomposer
from explain3d.core.errors import (
    InputError,
    NotApplicableError,
    UnknownNameError,
    UnknownOperationError,
)
from explain3d.core.structures import Detections
from explain3d.lmd import Decomposition
from explain3d.lmd.detections import read_out
from explain3d.lmd.frame import frame_of
from explain3d.lmd.nested import tensors
from tests.models import fusion_cases as cases

CLASSES = ('car', 'truck', 'bus', 'bicycle', 'pedestrian')
ATTRIBUTES = {
    'center': [
        'logit',
        'dx',
        'dy',
        'z',
        'log_l',
        'log_w',
        'log_h',
        'sin_yaw',
        'cos_yaw',
        'vx',
        'vy',
    ],
    'anchor': ['logit', 'dx', 'dy', 'dz', 'dl', 'dw', 'dh', 'dyaw', 'direction_0', 'direction_1'],
}
HEADS = list(ATTRIBUTES)


def decompose(model, data, **settings):
    settings = {'class_names': CLASSES, 'score_thr': 0.1, **settings}
    decomposer = ShareDecomposer(model, **settings)
    return decomposer.decompose(model.test_step, data, decomposer.frames(data))


@pytest.fixture(scope='module', params=HEADS)
def case(request):
    model = cases.build(request.param)
    plain = model.test_step(cases.batch(0, 1))
    samples, found = decompose(model, cases.batch(0, 1), mode='check')
    return request.param, model, plain, samples, found


def test_predictions_are_the_models_own(case):
    _, _, plain, samples, _ = case
    for before, after in zip(plain, samples, strict=True):
        assert len(before.pred_instances_3d) > 3
        for key in ('scores_3d', 'labels_3d'):
            assert torch.equal(before.pred_instances_3d[key], after.pred_instances_3d[key])
        boxes = [s.pred_instances_3d.bboxes_3d.tensor for s in (before, after)]
        assert torch.equal(*boxes)


def test_a_stored_frame_has_todays_class_names(case):
    _, model, _, _, found = case
    stored = found[0]
    decomposer = ShareDecomposer(model, class_names=CLASSES)
    frame = decomposer.frames(cases.batch(0, 1))[0]
    assert decomposer.as_today(stored, frame) is stored
    renamed = ShareDecomposer(model, class_names=('van', *CLASSES[1:]))
    assert renamed.settings == decomposer.settings  # Names decide no figure.
    today = renamed.as_today(stored, frame)
    assert today.detections.class_names == ('van', *CLASSES[1:])
    assert torch.equal(today.parts.parts, stored.parts.parts)
    assert stored.detections.class_names == CLASSES


def test_every_attribute_of_every_detection_is_read_where_it_was_decoded(case):
    head, model, _, _, found = case
    for frame in found:
        assert frame.names == ('camera', 'lidar', 'bias')
        assert list(frame.parts.attributes) == ATTRIBUTES[head]
        torch.testing.assert_close(frame.parts.of_value('logit').sigmoid(), frame.detections.scores)
        values = {name: frame.parts.of_value(name) for name in ATTRIBUTES[head]}
        boxes = frame.detections.boxes
        if head == 'center':
            cell = (boxes[:, :2] + 12) / 1.0 - torch.stack([values['dx'], values['dy']], 1)
            torch.testing.assert_close(cell, cell.round(), rtol=0, atol=1e-4)
            torch.testing.assert_close(values['z'], boxes[:, 2], rtol=0, atol=1e-4)
            size = torch.stack([values[f'log_{n}'] for n in 'lwh'], 1).exp()
            torch.testing.assert_close(size, boxes[:, 3:6], rtol=1e-4, atol=1e-4)
            yaw = torch.atan2(values['sin_yaw'], values['cos_yaw'])
            torch.testing.assert_close((yaw - boxes[:, 6]).cos(), torch.ones(len(boxes)))
        else:
            size = torch.stack([values[f'd{n}'] for n in 'lwh'], 1).exp()
            anchor = torch.tensor([4.0, 1.8, 1.6])
            torch.testing.assert_close(size * anchor, boxes[:, 3:6], rtol=1e-4, atol=1e-4)


def test_parts_of_every_attribute_sum_to_it(case):
    for frame in case[-1]:
        assert len(frame.parts) > 3
        assert frame.parts.conservation_error() < 1e-5
        assert frame.parts.residual < 1e-5
        shares = frame.parts.shares()
        torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)).double())
        assert (shares > 0).all()


@pytest.mark.parametrize('head', HEADS)
def test_conservation_in_float64(head, monkeypatch):
    """The hosts' suppression takes float32 only: the boxes are found there, and read in float64."""
    model = cases.build(head)
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(1, channels, 24, 24, generator=generator) for channels in (8, 16)]
    monkeypatch.setattr(model, 'sensor_maps', lambda *_: maps)
    detections = detections_of(model.test_step(cases.batch(0))[0], CLASSES, 'frame')
    assert len(detections) > 3
    model.requires_grad_(False).double()
    maps = [each.double() for each in maps]
    data = model.data_preprocessor(cases.batch(0), False)
    seeds, outputs = model.lmd_seeds(), model.lmd_outputs
    with torch.no_grad(), Decomposition(model, seeds, outputs, mode='check') as run:
        model(**data, mode='tensor')
    found = {name: frame_of(each, 0) for name, each in run.outputs.items()}
    readings = readings_of(
        copy.deepcopy(model.pts_bbox_head).float(), 'pts_bbox_head',
        {name: each.value.float() for name, each in found.items()}, detections, 'frame',
    )  # fmt: skip
    parts = read_out(found, readings, len(detections))
    assert list(parts.attributes) == ATTRIBUTES[head]
    assert parts.parts.dtype == torch.float64
    assert parts.conservation_error() < 1e-12
    assert parts.residual < 1e-12
    # Behind the fusion all is linear but for ReLU: a part is gradient x map, by code not ours.
    for each in maps:
        each.requires_grad_()
    plain = {f'pts_bbox_head.{p}': each[0] for p, each in tensors(model(**data, mode='tensor'))}
    for reading in readings:
        column = parts.attributes.index(reading.attribute)
        values = reading.of(plain[reading.output])
        for value, k in zip(values[:2], reading.detections[:2].tolist(), strict=True):
            gradients = torch.autograd.grad(value, maps, retain_graph=True)
            expected = [float((g * m).sum()) for g, m in zip(gradients, maps, strict=True)]
            assert parts.parts[k, :2, column].tolist() == pytest.approx(
                expected, rel=1e-9, abs=1e-9
            )


def test_without_a_sensor_the_raw_outputs_are_those_of_a_run_without_it(case):
    head, model, _, _, found = case
    data = cases.batch(0, 1)
    data['inputs']['points'] = [points[:0] for points in data['inputs']['points']]
    with torch.no_grad():
        maps = model(**model.data_preprocessor(data, False), mode='tensor')
    effect, detections = found[1].effects['lidar'], found[1].detections
    assert set(found[1].effects) == {'camera', 'lidar'}
    logits = torch.cat([m[0]['heatmap'][1].flatten() for m in maps]) if head == 'center' else (
        maps[0][0][1].flatten()
    )  # fmt: skip
    for raw in effect.raw[:, 0]:
        assert (logits == raw).any()
    assert not torch.equal(effect.raw, found[1].parts.value)
    assert len(effect.found) == len(detections)
    assert ((effect.overlaps > 0.1) == effect.found).all()


@pytest.mark.parametrize('useless', ['camera', 'lidar'])
@pytest.mark.parametrize('head', HEADS)
def test_a_sensor_that_provably_does_not_matter_has_no_share(head, useless):
    model = cases.build(head)
    with torch.no_grad():
        columns = slice(0, 8) if useless == 'camera' else slice(8, None)
        model.fuser.conv.weight[:, columns] = 0
    _, frames = decompose(model, cases.batch(0, 1))
    other = 'lidar' if useless == 'camera' else 'camera'
    for frame in frames:
        row = frame.names.index(useless)
        assert len(frame.parts) > 3
        assert (frame.parts.parts[:, row] == 0).all()
        assert (frame.parts.shares()[:, row] == 0).all()
        assert (frame.parts.shares()[:, frame.names.index(other)] > 0).all()
        assert torch.equal(frame.effects[useless].raw, frame.parts.value)
        assert frame.effects[useless].found.all()
        assert torch.equal(frame.effects[useless].scores, frame.detections.scores)
        assert not torch.equal(frame.effects[other].raw, frame.parts.value)


def test_each_camera_is_a_modality_of_its_own():
    model = cases.build()
    _, (frame,) = decompose(model, cases.batch(0), seeds='cameras', blank=['CAM_BACK'])
    assert frame.names == (*cases.CAMERAS, 'lidar', 'bias')
    _, (whole,) = decompose(model, cases.batch(0), blank=())
    cameras = frame.parts.parts[:, :2].sum(1)
    torch.testing.assert_close(cameras, whole.parts.parts[:, 0], rtol=1e-3, atol=1e-4)
    assert list(frame.effects) == ['CAM_BACK']


def test_points_of_one_cloud_are_told_apart_from_the_voxels_on():
    """Through stock voxel encoder and sparse encoder: which half of the cloud made the box?"""
    model = cases.build()
    halves = dict(behind=(None, 0.0), ahead=(0.0, None))
    seeds = [
        dict(module='fuser', path='0.0', modality='camera'),
        dict(module='pts_voxel_encoder', dim=-1, channel=0, intervals=halves),
    ]
    _, (frame,) = decompose(model, cases.batch(0), seeds=seeds, blank=(), mode='check')
    assert frame.names == ('camera', 'behind', 'ahead', 'bias')
    assert frame.parts.residual < 1e-5
    assert frame.parts.conservation_error() < 1e-5
    # With all of it ahead, that part is the LiDAR's, and behind has none.
    data = cases.batch(0)
    data['inputs']['points'][0][:, 0] = data['inputs']['points'][0][:, 0].abs()
    _, (frame,) = decompose(model, data, seeds=seeds, blank=(), mode='check')
    whole = [seeds[0], dict(module='pts_voxel_encoder', modality='lidar')]
    _, (expected,) = decompose(model, data, seeds=whole, blank=(), mode='check')
    assert not frame.parts.parts[:, 1].any()
    torch.testing.assert_close(frame.parts.parts[:, [0, 2, 3]], expected.parts.parts)


def test_frames_without_points_and_without_detections():
    model = cases.build()
    data = cases.batch(0, 1, points=0)
    _, frames = decompose(model, data)
    for frame in frames:
        assert len(frame.parts) > 0
        assert (frame.parts.parts[:, 1] == 0).all()
    _, frames = decompose(model, cases.batch(0, 1), score_thr=2.0)
    for frame in frames:
        assert frame.parts.parts.shape == (0, 3, 11)
        assert frame.effects['lidar'].raw.shape == (0, 11)


def test_from_python_it_is_the_same_and_the_model_stays_as_it_was(case):
    _, model, _, _, found = case
    model.train()
    settings = dict(class_names=CLASSES, score_thr=0.1)
    one = explain3d.sensor_shares(model, cases.item(0), **settings)
    assert model.training
    model.eval()
    assert one.frame_id == found[0].frame_id
    assert one.detections.names() == found[0].detections.names()
    torch.testing.assert_close(one.parts.parts, found[0].parts.parts, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match='received Tensor'):
        explain3d.sensor_shares(model, torch.zeros(3))


def test_operations_without_a_rule_are_refused():
    class Fourier(nn.Module):
        def forward(self, maps):
            return [torch.fft.fft2(maps[0]).real]

    model = cases.build()
    model.pts_neck = nn.Sequential(model.pts_neck, Fourier())
    with pytest.raises(UnknownOperationError, match='fft'):
        decompose(model, cases.batch(0))


def test_heads_and_modalities_that_are_not_known_are_refused(monkeypatch):
    model = cases.build('anchor')
    with pytest.raises(UnknownNameError, match=r"\['radar'\] to blank"):
        ShareDecomposer(model, blank=['radar'])
    from explain3d.adapters.mmdet3d.lmd import readings

    monkeypatch.setattr(readings, 'FAMILIES', ())
    with pytest.raises(NotApplicableError, match='expected CenterHead, Anchor3DHead'):
        decompose(model, cases.batch(0))


def test_a_box_counts_as_found_if_one_of_its_class_is_where_it_was():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0], [10, 0, 0, 4, 2, 2, 0], [20, 0, 0, 4, 2, 2, 0]])
    before = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0]))
    moved = boxes + torch.tensor([0.5, 0, 0, 0, 0, 0, 0])
    after = Detections(moved[:2], torch.tensor([0.4, 0.3]), torch.tensor([0, 0]))
    found = effect_of(before, after, torch.zeros(3, 1), overlap=0.1)
    assert found.found.tolist() == [True, False, False]  # The second is of another class now.
    assert found.scores.tolist() == pytest.approx([0.4, 0, 0])
    assert found.overlaps[0] == pytest.approx(3.5 / 4.5)
