"""Explanations do not depend on the order in which sparse convolutions list their voxels.

On a GPU that order is one of chance; here each pass has another one.
"""

from functools import lru_cache

import pytest
import torch
from test_tracer import Scene

from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from explain3d.metrics.sanity import randomisation
from tests.helpers.pretend_device.random_rows import random_rows

TARGETS = parse_targets(['score'])
#: Products of other blocks of rows round otherwise (1e-7 of a feature); the factorisation, whose
#: iterations stop at 1e-4 of its objective, makes the most of it.
CLOSE = dict(atol=1e-3, rtol=0)
METHODS = {
    'FFAM': dict(type='FFAM', rank=4),
    'IntegratedGradients': dict(type='IntegratedGradients', steps=2),
}


@lru_cache  # A fixture of the module would be made before the pretended device is there.
def second():
    return Scene('second')


@pytest.fixture
def scene():
    return second()


def trace(scene):
    return scene.trace(0, scene.detections(0)[torch.arange(3)])


def test_features_stand_by_cell(scene):
    expected = trace(scene)
    with random_rows():
        found = trace(scene)
    assert torch.equal(found.features.coords, expected.features.coords)
    torch.testing.assert_close(found.features.values, expected.features.values)


def explained(scene, method):
    explainer, given = EXPLAINERS.build(METHODS[method]), trace(scene)
    maps = explainer.explain(given, TARGETS)
    parts = [('head', scene.tracer.head)]
    return maps, randomisation(explainer, given, TARGETS, maps, parts)['head']['score']


@pytest.mark.parametrize('method', METHODS)
def test_maps_and_their_randomisation_are_the_same(method, scene):
    expected, ranks = explained(scene, method)
    with random_rows():
        found, others = explained(scene, method)
    torch.testing.assert_close(found.saliency['score'], expected.saliency['score'], **CLOSE)
    torch.testing.assert_close(others, ranks, atol=0.01, rtol=0)
