"""Gradients in windows in OpenPCDet: those of one backward pass for each detection."""

import logging
from dataclasses import replace

import numpy as np
import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.pcdet.frames import detections_of, frames_of
from explain3d.adapters.pcdet.tracer import Tracer
from explain3d.core.gradients import reduce_gradients
from explain3d.core.targets import parse_targets

WIDE = [0, -16, -3, 32, 16, 1]


def widened(config):
    config['DATA_CONFIG']['POINT_CLOUD_RANGE'] = WIDE


@pytest.mark.parametrize('count', [1, 6])
@pytest.mark.parametrize(
    ('name', 'layer'), [('second', 'stride4'), ('centerpoint', 'stride4'), ('second', 'neck')]
)
def test_windows_give_the_gradients_of_the_frame(pcdet_host, name, layer, count, caplog):
    caplog.set_level(logging.INFO, logger='explain3d')
    model = scenes.build(name, widened)
    generator = np.random.default_rng(0)
    low, high = np.array(WIDE[:3]), np.array(WIDE[3:])
    points = generator.random((2000, 4)).astype(np.float32)
    points[:, :3] = low + (high - low) * points[:, :3]
    batch = scenes.batch(model, points)
    with torch.no_grad():
        found = model(dict(batch))[0][0]
    detections = detections_of(found, model.class_names, 'f')
    tracer = Tracer(model, layer)
    trace = tracer.trace(model.forward, frames_of(batch)[0], detections[:count])
    assert len(trace.detections) == count
    assert trace.gradients is not None, caplog.messages
    targets = parse_targets(['all', 'score'])
    got = reduce_gradients(trace, targets)
    assert not trace.gradients._failed, caplog.messages
    for name, want in reduce_gradients(replace(trace, gradients=None), targets).items():
        scale = want.amax(1, keepdim=True)
        assert (scale > 0).all()
        torch.testing.assert_close(got[name] / scale, want / scale, atol=2e-5, rtol=0)
