"""Gradients of many detections by few backward passes: those of one pass each, exactly."""

import logging
import math
from dataclasses import replace

import pytest
import tiny_detectors as tiny
import torch
from tiny_detectors import wider
from torch import nn

from explain3d.adapters.common.layer_windows import AxisWindows
from explain3d.adapters.mmdet3d.frames import one_frame
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.gradients import reduce_gradients
from explain3d.core.structures import BOX_ATTRIBUTES, Detections
from explain3d.core.targets import parse_targets


class Scene:
    """A detector in float64, a cloud all over its range, and detections all over its map."""

    def __init__(self, name='second', layer='stride4', change=None):
        self.model = tiny.build(wider(tiny.MODELS[name]()))
        if change is not None:
            change(self.model)
        self.model.double()
        torch.manual_seed(1)
        low, high = torch.tensor([0, -25.6, -2.5]), torch.tensor([51.2, 25.6, 0.5])
        points = low + torch.rand(1500, 3) * (high - low)
        points = torch.cat([points, torch.rand(1500, 1)], 1).double()
        with torch.no_grad():
            data = self.model.data_preprocessor(tiny.batch(points.float()), False)
        self.frame = one_frame(data['inputs'], 0, 1)
        self.frame['points'] = [points]
        self.frame['voxels']['voxels'] = self.frame['voxels']['voxels'].double()
        self.sample = data['data_samples'][0]
        self.tracer = Tracer(self.model, layer)

    def detections(self, count=7, stride=None):
        """Candidates at the map's first cell, at its last, and in between."""
        with torch.no_grad():
            candidates = self.tracer._run(self.model.predict, self.frame, self.sample)
            pool = candidates.of_label(0)
            index = torch.linspace(0, len(pool) - 1, count).long()
            if stride is not None:
                index = len(pool) // 2 + stride * torch.arange(count)
            labels = torch.zeros(count, dtype=torch.long)
            boxes, scores = candidates.boxes(pool[index]), candidates.scores(pool[index], labels)
        assert boxes.shape == (count, len(BOX_ATTRIBUTES))
        return Detections(boxes, scores, labels, tuple(tiny.CLASSES))

    def trace(self, detections=None):
        detections = self.detections() if detections is None else detections
        return self.tracer.trace(self.model.predict, self.frame, self.sample, detections, 'a frame')


def compare(trace):
    targets = parse_targets(['all', 'yaw'])
    found = reduce_gradients(trace, targets)
    for name, expected in reduce_gradients(replace(trace, gradients=None), targets).items():
        assert (expected.amax(1) > 0).all()
        torch.testing.assert_close(found[name], expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('second', 'stride4'),
        ('second', 'stride8'),
        ('second', 'bev'),
        ('second', 'neck'),
        ('centerpoint_voxel', 'pts_middle_encoder.conv_out'),
        ('centerpoint_voxel', 'neck'),
    ],
)
def test_windows_give_the_gradients_of_the_frame(name, layer):
    trace = Scene(name, layer).trace()
    assert trace.gradients is not None
    assert sorted(trace.gradients.order) == list(range(7))
    compare(trace)
    assert not trace.gradients._failed


def test_several_detections_share_a_pass():
    scene = Scene()
    trace = scene.trace(scene.detections(6, stride=40))
    assert len(trace.gradients._batches) < 6


def test_detections_of_one_cell():
    scene = Scene()
    trace = scene.trace(scene.detections(4, stride=1))
    assert len({tuple(cell) for cell in trace.gradients._pass.cells.tolist()}) < 4
    compare(trace)


def test_another_graph_is_not_mistaken_for_the_frames():
    trace = Scene().trace()
    with torch.enable_grad():
        leaf, attributes = trace.replay(trace.leaf.detach() * 0.5)
    half = replace(trace, leaf=leaf, attributes=attributes)
    targets = parse_targets('all')
    found = reduce_gradients(half, targets)['all']
    expected = reduce_gradients(replace(half, gradients=None), targets)['all']
    assert torch.equal(found, expected)
    assert not torch.allclose(found, reduce_gradients(trace, targets)['all'])


def test_the_model_is_left_as_found():
    scene = Scene()
    before = [dict(module._forward_hooks) for module in scene.model.modules()]
    compare(scene.trace())
    assert before == [dict(module._forward_hooks) for module in scene.model.modules()]
    assert not any(module.training for module in scene.model.modules())


class Rolled(nn.Module):
    """Looks far away, and does not look as if it did."""

    def forward(self, value):
        return value + torch.roll(value, 20, 2)


class Beside(nn.Module):
    """Adds the number of frames and rows: fails on windows, or gives other values."""

    def forward(self, value):
        if value.shape[0] > 1:
            raise ValueError('one frame only')
        return value


def behind_the_encoder(module):
    def change(model):
        model.backbone = nn.Sequential(module, model.backbone)

    return change


@pytest.mark.parametrize(
    ('module', 'message'),
    [
        (nn.GroupNorm(2, 16), 'looks at the whole frame'),
        (Rolled(), 'windows give other values'),
        (Beside(), 'one frame only'),
    ],
    ids=['looks_at_all', 'looks_far', 'fails'],
)
def test_what_cannot_be_cut_has_a_pass_for_each(module, message, caplog):
    scene = Scene(change=behind_the_encoder(module))
    with caplog.at_level(logging.INFO, logger='explain3d'):
        compare(scene.trace())
        assert scene.trace().gradients is None
    assert sum(message in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ('name', 'layer'), [('second', 'voxel_encoder'), ('pointpillars', 'pillars')]
)
def test_layers_without_windows(name, layer):
    """Pillars are put on the map above the layer: a window of them has no place."""
    model = tiny.build(tiny.MODELS[name]())
    with torch.no_grad():
        data = model.data_preprocessor(tiny.batch(tiny.cloud(0)), False)
        frame, sample = one_frame(data['inputs'], 0, 1), data['data_samples'][0]
        (output,) = model(**data, mode='predict')
    predictions = output.pred_instances_3d
    assert len(predictions) > 0
    tracer = Tracer(model, layer)
    boxes = predictions.bboxes_3d
    detections = Detections(
        torch.cat([boxes.gravity_center, boxes.tensor[:, 3:7]], 1),
        predictions.scores_3d,
        predictions.labels_3d,
        tuple(tiny.CLASSES),
    )
    assert tracer.trace(model.predict, frame, sample, detections, '0').gradients is None


def test_windows_have_one_size_up_to_the_end_of_the_map():
    axis = AxisWindows(cells=43, ratio=2.0, offset=0.5, reach=7.0, step=4)
    spans = [axis.span(cell) for cell in range(21)]
    assert {b - a for a, b in spans if b < 43} == {axis.size}
    assert len({span for span in spans if span[1] == 43}) == 1
    for cell, (first, last) in enumerate(spans):
        assert first % 4 == 0
        assert first <= max(math.ceil(0.5 + 2 * cell - 7), 0)
        assert last - 1 >= min(math.floor(0.5 + 2 * cell + 7), 42)
        assert axis.local(cell) == cell - first / 2


def test_a_map_smaller_than_a_window_is_the_window():
    axis = AxisWindows(cells=10, ratio=1.0, offset=0.0, reach=30.0, step=4)
    assert {axis.span(cell) for cell in range(10)} == {(0, 10)}
