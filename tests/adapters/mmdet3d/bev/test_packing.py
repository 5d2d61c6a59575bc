"""Blanking, packing and the evaluator."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet3d')

from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData

from explain3d.adapters.mmdet3d.bev import (
    BEVSegMetric,
    BlankSensor,
    PackBEVInputs,
    ToReferenceFrame,
    VehicleBEVMaps,
)
from explain3d.core.errors import InputError

GRID = dict(x=(-50, 50, 100), y=(-3, 1, 4), z=(-50, 50, 100))


def loaded():
    """A sample as the loading transforms leave it: a car 10 m ahead, 3 m to the left."""
    car = np.eye(4)
    car[:3, 3] = 10, 3, 0.8
    return dict(
        sample_idx=5,
        token='abc',
        img=[np.full((4, 6, 3), i, np.uint8) for i in (1, 2)],
        cam_names=('CAM_FRONT', 'CAM_BACK'),
        cam2img=np.tile(np.eye(4), (2, 1, 1)),
        cam2ego=np.tile(np.eye(4), (2, 1, 1)),
        img_shape=(4, 6),
        points=np.ones((7, 5), np.float32),
        radar=np.ones((3, 6), np.float32),
        radar_fields=('x', 'y', 'z', 'vx_comp', 'vy_comp', 'rcs'),
        radar_velocities='ego',
        vehicles=dict(
            size=np.array([[4.0, 2, 1.6]], np.float32),
            box2ego=car[None].astype(np.float32),
            visibility=np.array([3]),
        ),
    )


def packed(*between):
    results = VehicleBEVMaps(GRID).transform(ToReferenceFrame().transform(loaded()))
    for transform in between:
        results = transform.transform(results)
    return PackBEVInputs().transform(results)


def test_shapes_types_and_metainfo():
    data = packed()
    inputs, sample = data['inputs'], data['data_samples']
    assert {name: (tuple(v.shape), v.dtype) for name, v in inputs.items()} == {
        'img': ((2, 3, 4, 6), torch.uint8),
        'points': ((7, 5), torch.float32),
        'radar': ((3, 6), torch.float32),
    }
    assert inputs['img'][1].unique().tolist() == [2]
    assert sample.cam_names == ('CAM_FRONT', 'CAM_BACK')
    assert sample.cam2ref.shape == sample.cam2img.shape == (2, 4, 4)
    assert (sample.img_shape, sample.sample_idx, sample.token) == ((4, 6), 5, 'abc')
    assert sample.radar_fields == ('x', 'y', 'z', 'vx_comp', 'vz_comp', 'rcs')
    assert sample.bev_grid['x'] == (-50, 50, 100)
    seg = sample.gt_bev_seg
    assert (seg.data.shape, seg.data.dtype) == ((1, 100, 100), torch.uint8)
    assert (seg.valid.shape, seg.valid.dtype) == ((1, 100, 100), torch.bool)
    # z 8 to 12, x -4 to -2: rows 58 to 61, columns 46 and 47.
    rows, columns = seg.data[0].nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([58, 59, 60, 61], [46, 47])
    assert sample.gt_bev_center.data.shape == (1, 100, 100)
    assert sample.gt_bev_offset.data.shape == (2, 100, 100)


def test_sensors_that_were_not_loaded_are_absent():
    results = loaded()
    for key in ('points', 'radar', 'vehicles'):
        del results[key]
    data = PackBEVInputs().transform(ToReferenceFrame().transform(results))
    assert list(data['inputs']) == ['img']
    assert 'gt_bev_seg' not in data['data_samples']


@pytest.mark.parametrize(
    ('sensor', 'key'), [('camera', 'img'), ('lidar', 'points'), ('radar', 'radar')]
)
def test_a_blanked_sensor_shows_nothing_and_the_others_stay(sensor, key):
    whole, blanked = packed(), packed(BlankSensor([sensor]))
    assert blanked['data_samples'].blanked == (sensor,)
    for name, value in blanked['inputs'].items():
        if name != key:
            assert torch.equal(value, whole['inputs'][name])
        elif name == 'img':
            assert value.shape == (2, 3, 4, 6)
            assert not value.any()
        else:
            assert value.shape == (0, whole['inputs'][name].shape[1])


def test_sensor_dropout_keeps_to_its_probabilities():
    drop = BlankSensor(dict(radar=0.3, camera=0.2))
    seen = [drop.transform(dict(img=[], radar=np.zeros((1, 3))))['blanked'] for _ in range(3000)]
    assert {s for s in seen} == {(), ('radar',), ('camera',)}
    # Five standard deviations of a binomial with 3000 draws are 0.042.
    assert seen.count(('radar',)) / 3000 == pytest.approx(0.3, abs=0.042)
    assert seen.count(('camera',)) / 3000 == pytest.approx(0.2, abs=0.042)


@pytest.mark.parametrize('sensors', [['sonar'], dict(radar=0.7, camera=0.5)])
def test_what_blanking_refuses(sensors):
    with pytest.raises(InputError, match='correct the names or the probabilities'):
        BlankSensor(sensors)


def evaluated(samples, metric=None):
    evaluator = Evaluator(metric or BEVSegMetric())
    for sample in samples:
        evaluator.process([sample], None)
    return evaluator.evaluate(len(samples))


def test_metric_adds_cells_over_samples_and_by_distance():
    samples = [packed()['data_samples'] for _ in range(2)]
    right = samples[0].gt_bev_seg.data.float() * 2 - 1
    samples[0].pred_bev_seg = PixelData(logits=right)
    # Half of the car, and 12 cells where there is nothing, 40 m to the right.
    wrong = right.clone()
    wrong[0, 60:62] = -1
    wrong[0, 48:52, 89:92] = 1
    samples[1].pred_bev_seg = PixelData(logits=wrong)
    figures = evaluated(samples)
    assert figures['bev/IoU_0-20m'] == pytest.approx((8 + 4) / (8 + 8))
    assert np.isnan(figures['bev/IoU_20-35m'])
    assert figures['bev/IoU_35-50m'] == 0
    assert figures['bev/IoU'] == pytest.approx(12 / (16 + 12))


def test_metric_leaves_invalid_cells_out():
    sample = packed()['data_samples']
    sample.pred_bev_seg = PixelData(logits=torch.ones(1, 100, 100))
    sample.gt_bev_seg.valid.fill_(False)
    sample.gt_bev_seg.valid[0, 58:62, 46:50] = True
    assert evaluated([sample], BEVSegMetric(rings=()))['bev/IoU'] == 0.5


def test_metric_says_what_is_missing():
    with pytest.raises(InputError, match='pred_bev_seg'):
        evaluated([packed()['data_samples']])
