"""Which sensor made which part of a box: BEVFusion's interfaces, a head of TransFusion's kind."""

import pytest
import torch

pytest.importorskip('mmdet3d')

from mmengine.registry import init_default_scope

import explain3d
from explain3d.adapters.mmdet3d.lmd.proposals import proposed_seeds
from explain3d.adapters.mmdet3d.lmd.readings import TransFusionReadings
from explain3d.adapters.mmdet3d.lmd.share_decomposer import ShareDecomposer
from explain3d.core.errors import InputError, NotApplicableError, UnknownNameError
from explain3d.core.results import load, save
from explain3d.lmd import Decomposition
from tests.adapters.mmdet3d.lmd import toy_bevfusion as toy
from tests.models import fusion_cases as cases

CLASSES = ('car', 'bus', 'pedestrian')
ATTRIBUTES = [
    *('logit', 'heatmap_logit', 'query', 'dx', 'dy', 'z', 'log_l', 'log_w', 'log_h'),
    *('sin_yaw', 'cos_yaw', 'vx', 'vy'),
]  # fmt: skip
LEVELS = ('sensors', 'branches')


@pytest.fixture(autouse=True, scope='module')
def _scope():
    init_default_scope('mmdet3d')


def decompose(model, data, seeds='sensors', **settings):
    settings = {'class_names': CLASSES, 'score_thr': 0.01, **settings}
    decomposer = ShareDecomposer(model, seeds, **settings)
    return decomposer.decompose(model.test_step, data, decomposer.frames(data))


@pytest.fixture(scope='module', params=[1, 2], ids=['1 layer', '2 layers'])
def case(request):
    model = toy.build(request.param)
    plain = model.test_step(cases.batch(0, 1))
    found = {level: decompose(model, cases.batch(0, 1), level, mode='check') for level in LEVELS}
    return model, plain, found


def test_predictions_are_the_models_own(case):
    _, plain, found = case
    for samples, _ in found.values():
        for before, after in zip(plain, samples, strict=True):
            before, after = before.pred_instances_3d, after.pred_instances_3d
            assert torch.equal(before.bboxes_3d.tensor, after.bboxes_3d.tensor)
            assert torch.equal(before.scores_3d, after.scores_3d)


@pytest.mark.parametrize('level', LEVELS)
def test_raw_outputs_decode_to_the_boxes_and_their_parts_sum_to_them(case, level):
    model, _, found = case
    for frame in found[level][1]:
        parts, boxes = frame.parts, frame.detections.boxes
        assert len(parts) >= 5
        assert list(parts.attributes) == ATTRIBUTES
        assert parts.names == ('camera', 'lidar', 'bias')
        assert parts.conservation_error() < 1e-5
        assert parts.residual < 1e-5
        value = {name: parts.of_value(name) for name in ATTRIBUTES}
        score = value['logit'].sigmoid() * value['heatmap_logit'].sigmoid()
        torch.testing.assert_close(score, frame.detections.scores)
        if len(model.bbox_head.decoder) == 1:  # Later layers begin where the one before ended.
            places = (boxes[:, :2] - toy.LOW) / toy.SIZE
            cells = places - torch.stack([value['dx'], value['dy']], 1) - 0.5
            torch.testing.assert_close(cells, cells.round(), rtol=0, atol=1e-5)
        torch.testing.assert_close(value['z'], boxes[:, 2], rtol=0, atol=1e-5)
        size = torch.stack([value[f'log_{n}'] for n in 'lwh'], 1).exp()
        torch.testing.assert_close(size, boxes[:, 3:6])
        yaw = torch.atan2(value['sin_yaw'], value['cos_yaw'])
        torch.testing.assert_close((yaw - boxes[:, 6]).cos(), torch.ones(len(boxes)))


def test_a_query_is_read_along_its_own_direction(case):
    model, _, found = case
    seeds, last = proposed_seeds(model, 'sensors'), len(model.bbox_head.decoder) - 1
    output = f'bbox_head.decoder.{last}'
    data = model.data_preprocessor(cases.batch(0, 1), False)
    with torch.no_grad(), Decomposition(model, seeds, [output]) as run:
        model(**data, mode='tensor')
    parts, frame = run.outputs[output], found['sensors'][1][1]
    for k, q in enumerate(frame.detection_indices.tolist()):
        query = parts.value[1, :, q]
        expected = parts.parts[:, 1, :, q] @ query / query.norm()
        torch.testing.assert_close(frame.parts['query'][k], expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(frame.parts.of_value('query')[k], query.norm())


@pytest.mark.parametrize('level', LEVELS)
@pytest.mark.parametrize('layers', [1, 2])
def test_conservation_in_float64(level, layers):
    model = toy.build(layers).double()
    data = model.data_preprocessor(cases.batch(0), False)
    outputs = {'bbox_head': 'bbox_head'}
    with torch.no_grad():
        plain = model(**data, mode='tensor')[0][0]
        with Decomposition(model, proposed_seeds(model, level), outputs, mode='check') as run:
            model(**data, mode='tensor')
    assert run.residual < 1e-12
    assert set(run.outputs) == {f'bbox_head.0.0.{kind}' for kind in plain}
    for kind, value in plain.items():
        found = run.outputs[f'bbox_head.0.0.{kind}']
        assert torch.equal(found.value, value)
        assert found.conservation_error() < 1e-12
        assert found.parts[:2].any()


def test_the_camera_branch_holds_lidar_and_sensors_tell_them_apart():
    model = toy.build()
    model.fusion_layer[0].weight[:, 4:] = 0  # The LiDAR's own branch does not matter.
    _, (branches,) = decompose(model, cases.batch(0), 'branches', blank=())
    _, (sensors,) = decompose(model, cases.batch(0), 'sensors', blank=())
    assert not branches.parts.parts[:, 1].any()
    assert sensors.parts.parts[:, 1].abs().amin() > 0
    # Without the depth they agree: the image is all that the camera's branch has.
    model.view_transform.depthnet.weight[:, :3] = 0
    _, (branches,) = decompose(model, cases.batch(0), 'branches', blank=())
    _, (sensors,) = decompose(model, cases.batch(0), 'sensors', blank=())
    assert not sensors.parts.parts[:, 1].any()
    # What constants make before the fuser is the camera's at one point, the bias at the other.
    torch.testing.assert_close(sensors.parts.value, branches.parts.value, rtol=0, atol=0)
    model.view_transform.depthnet.bias.zero_()
    model.view_transform.downsample[0].bias.zero_()
    _, (branches,) = decompose(model, cases.batch(0), 'branches', blank=())
    _, (sensors,) = decompose(model, cases.batch(0), 'sensors', blank=())
    torch.testing.assert_close(sensors.parts.parts, branches.parts.parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('level', LEVELS)
def test_a_camera_that_provably_does_not_matter_has_no_share(level):
    model = toy.build()
    model.fusion_layer[0].weight[:, :4] = 0
    _, frames = decompose(model, cases.batch(0, 1), level)
    for frame in frames:
        assert (frame.parts.shares()[:, 0] == 0).all()
        assert not frame.parts.parts[:, 0].any()
        assert (frame.parts.shares()[:, 1] > 0).all()
        # The same cells become queries, and give the same boxes.
        assert torch.equal(frame.effects['camera'].raw, frame.parts.value)
        assert frame.effects['camera'].found.all()


def test_without_a_sensor_raw_outputs_are_those_of_the_queries_of_the_same_cells(case, tmp_path):
    model, _, found = case
    frame = found['sensors'][1][0]
    data = cases.batch(0)
    cloud = data['inputs']['points'][0]
    data['inputs']['points'] = [cloud[cloud[:, :2].norm(dim=1).argmax()][None]]
    with torch.no_grad():
        (out,) = model(**model.data_preprocessor(data, False), mode='tensor')[0]
    queries = model.bbox_head.query_labels[0]
    raw, heat = frame.effects['lidar'].raw, frame.parts.attributes.index('heatmap_logit')
    assert not raw[:, heat].isnan().any()
    there = ~raw[:, 0].isnan()
    assert there.any()
    assert (~there).any()
    assert torch.equal(raw[:, 0].isnan(), raw[:, 5].isnan())
    for k in there.nonzero().flatten().tolist():
        label = int(frame.detections.labels[k])
        # Another size of the batch rounds differently.
        logits = out['heatmap'][0, label, -toy.QUERIES :][queries == label]
        assert ((logits - raw[k, 0]).abs() < 1e-5).any()
        assert ((out['dense_heatmap'][0, label] - raw[k, heat]).abs() < 1e-5).any()
    # Such a frame can be written, and read again.
    save(tmp_path / 'frame.npz', frame)
    again = load(tmp_path / 'frame.npz')
    assert torch.equal(again.effects['lidar'].raw.isnan(), raw.isnan())


def test_frames_without_detections():
    _, frames = decompose(toy.build(), cases.batch(0, 1), score_thr=2.0)
    for frame in frames:
        assert frame.parts.parts.shape == (0, 3, len(ATTRIBUTES))
        assert frame.effects['lidar'].raw.shape == (0, len(ATTRIBUTES))


def test_the_heat_map_and_the_queries_as_wholes_from_python():
    model = toy.build()
    outputs = ['bbox_head.heatmap_head', 'bbox_head.decoder.0']
    frame = explain3d.decompose(model, cases.item(0), 'sensors', outputs, mode='check')
    heat, queries = (frame.outputs[name] for name in outputs)
    assert heat.parts.shape == (3, toy.CLASSES, toy.CELLS, toy.CELLS)
    assert queries.parts.shape == (3, toy.WIDTH, toy.QUERIES)
    assert max(heat.conservation_error(), queries.conservation_error()) < 1e-5
    assert heat.parts.flatten(1).any(1).all()


def test_levels_and_detectors_that_are_not_known_are_refused():
    model = toy.build()
    assert [seed.module for seed in proposed_seeds(model, None)] == [
        'view_transform', 'view_transform.dtransform', 'fusion_layer',
    ]  # fmt: skip
    with pytest.raises(UnknownNameError, match="'cameras' of modalities.*'sensors', 'branches'"):
        proposed_seeds(model, 'cameras')
    del model.view_transform.dtransform  # LSS without LiDAR depth: branches are sensors.
    assert proposed_seeds(model, 'sensors') == proposed_seeds(model, 'branches')
    with pytest.raises(NotApplicableError, match='does not propose where to begin'):
        proposed_seeds(model.bbox_head, None)


def test_layers_that_are_read_are_the_heads_own():
    model = toy.build(2)
    assert TransFusionReadings.layers(model.bbox_head) == (
        'decoder.1', 'prediction_heads.0', 'prediction_heads.1',
    )  # fmt: skip
    model.bbox_head.bbox_coder.out_size_factor = 5
    with pytest.raises(InputError, match='none of the candidates'):
        decompose(model, cases.batch(0))
