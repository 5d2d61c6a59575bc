"""Gradients at a further layer from the windows of the explained one: those of its own, exactly."""

from dataclasses import replace

import pytest
import torch
from test_windowed_gradients import Scene

from explain3d.adapters.common.shared_gradients import SharedGradients, sharing
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.gradients import reduce_at, reduce_gradients
from explain3d.core.targets import parse_targets

TARGETS = parse_targets(['all', 'yaw', {'attributes': ['x', 'y'], 'combine': 'abs'}])


def traces(name='second', first='stride4', other='stride8', **options):
    scene = Scene(name, first)
    detections = scene.detections(**options)
    trace = scene.trace(detections)
    scene.tracer = Tracer(scene.model, other)
    own = scene.trace(detections)
    (shared,) = sharing(trace, [own])
    return trace, own, shared


def same(found, trace):
    for name, expected in reduce_gradients(replace(trace, gradients=None), TARGETS).items():
        assert (expected.amax(1) > 0).all()
        torch.testing.assert_close(found[name], expected, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize(
    ('name', 'first', 'other'),
    [
        ('second', 'stride4', 'stride8'),
        ('second', 'stride2', 'stride8'),
        ('second', 'stride4', 'bev'),
        ('second', 'stride8', 'neck'),
        ('second', 'bev', 'neck'),
        ('centerpoint_voxel', 'pts_middle_encoder.conv_out', 'bev'),
        ('centerpoint_voxel', 'pts_middle_encoder.conv_out', 'neck'),
    ],
)
def test_both_layers_come_from_the_passes_of_one(name, first, other):
    trace, own, shared = traces(name, first, other)
    at_first, at_other = reduce_at([trace, shared], TARGETS)
    assert own.gradients.passes == shared.gradients.passes == 0
    made = trace.gradients.passes
    same(at_first, trace)
    same(at_other, own)
    alone, _, _ = traces(name, first, other)
    reduce_gradients(alone, TARGETS)
    assert made == alone.gradients.passes


def test_several_windows_of_one_pass():
    trace, own, shared = traces(count=6, stride=40)
    assert len(trace.gradients._batches) < 6
    same(reduce_at([trace, shared], TARGETS)[1], own)
    assert own.gradients.passes == 0


def test_detections_in_any_order():
    trace, own, shared = traces()
    for k in (3, 0, 6, 1):
        expected = own.gradients.gradient(k, ('x', 'yaw'), True)
        found = shared.gradients.gradient(k, ('x', 'yaw'), True)
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-9)


def test_a_layer_below_has_passes_of_its_own():
    trace, own, shared = traces(first='stride4', other='stride2')
    found = reduce_at([trace, shared], TARGETS)
    same(found[0], trace)
    same(found[1], own)
    assert own.gradients.passes > 0


@pytest.mark.parametrize('what', ['values', 'rows', 'ratio', 'passes'])
def test_windows_that_are_not_the_frames_are_not_taken(what):
    trace, own, shared = traces()
    (layer,) = trace.gradients._above
    if what == 'values':  # Of another pass.
        layer.leaf = replace(layer.leaf, tensor=layer.leaf.tensor.detach() + 1)
    elif what == 'rows':  # A voxel is missing.
        layer.leaf = replace(layer.leaf, indices=layer.leaf.indices[:0])
    elif what == 'ratio':
        layer.ratio = (3.0, 2.0)
    else:  # The explained layer itself gave windows up.
        trace.gradients._failed = True
    same(reduce_at([trace, shared], TARGETS)[1], own)
    assert own.gradients.passes > 0


def test_other_sources_stay_as_they_are():
    trace, own, shared = traces()
    assert isinstance(shared.gradients, SharedGradients)
    for first, further in (
        (trace, replace(own, gradients=None)),
        (replace(trace, gradients=None), own),
    ):
        assert sharing(first, [further]) == [further]
    assert sharing(trace, []) == []


def test_a_layer_without_rows_is_left_out():
    trace, own, _ = traces()
    empty = replace(
        own,
        features=replace(
            own.features, values=own.features.values[:0], coords=own.features.coords[:0]
        ),
    )
    found = reduce_at([empty, trace], TARGETS)
    assert found[0]['all'].shape == (7, 0)
    same(found[1], trace)
