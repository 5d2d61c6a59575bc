"""Every explainer keeps its promises on a trace of an OpenPCDet detector."""

import pcdet_scenes as scenes
import pytest
import torch

from explain3d.adapters.pcdet.frames import detections_of, frames_of
from explain3d.adapters.pcdet.tracer import Tracer
from tests.contract.test_explainers import (
    CONFIGS,
    TARGETS,
    assert_untouched,
    check,
    explain,
    label,
    same,
    snapshot,
)


@pytest.fixture(scope='module')
def model(pcdet_host):
    return scenes.build('second')


@pytest.fixture(scope='module')
def trace(model):
    batch = scenes.batch(model, scenes.cloud(1))
    with torch.no_grad():
        found = model(dict(batch))[0][0]
    detections = detections_of(found, model.class_names, 'f')[:2]
    return Tracer(model, 'stride4').trace(model.forward, frames_of(batch)[0], detections)


@pytest.mark.parametrize('cfg', CONFIGS, ids=label)
def test_explainers_keep_their_promises_here_too(cfg, model, trace):
    if cfg['type'] == 'OccAM':  # The scores of random weights are low.
        cfg = {**cfg, 'score_thr': 0.0}
    before = snapshot(trace, model)
    maps = explain(cfg, trace)
    check(maps, TARGETS, 2, len(trace.points))
    assert any(values.any() for values in maps.saliency.values())
    assert_untouched(trace, model, before)
    with torch.no_grad():
        same(maps, explain(cfg, trace))
