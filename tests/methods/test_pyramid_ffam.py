"""PyramidFFAM: two layers' maps, multiplied at the points."""

from dataclasses import replace

import pytest
import torch

from explain3d.core.errors import InputError, NotApplicableError
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS, FFAM, PyramidFFAM
from tests.helpers.toy_detector import ToyDetector

TARGETS = parse_targets(['all', 'yaw'])
OPTIONS = dict(rank=3, radius=1, k=5)


@pytest.fixture
def trace():
    """A frame at two layers whose features and gradients differ."""
    toy = ToyDetector()
    points = toy.points(60)
    fine, coarse = (toy.trace(points, toy.anchors(4, seed)) for seed in (0, 5))
    values = coarse.features.values.flip(1)
    coarse = replace(coarse, features=replace(coarse.features, values=values.square()))
    return replace(fine, further=(coarse,))


@pytest.mark.parametrize('contrast', [0.6, 1.0])
@pytest.mark.parametrize('upsampling', ['gaussian', 'manhattan'])
def test_the_maps_are_the_product_of_two_layers(trace, contrast, upsampling):
    options = dict(OPTIONS, upsampling=upsampling)
    found = PyramidFFAM(contrast=contrast, **options).explain(trace, TARGETS)
    fine, coarse = (FFAM(**options).explain(at, TARGETS) for at in (trace, *trace.further))
    assert not torch.allclose(fine.saliency['yaw'], coarse.saliency['yaw'])
    for name, values in found.saliency.items():
        expected = fine.saliency[name].double() * coarse.saliency[name].double()
        torch.testing.assert_close(values.double(), expected**contrast, atol=1e-7, rtol=1e-6)
    expected = (fine.global_map * coarse.global_map) ** contrast
    torch.testing.assert_close(found.global_map, expected)
    assert found.info['fine_nmf_rank'] == found.info['coarse_nmf_rank'] == 3
    assert found.info['fine_nmf_residual'] != found.info['coarse_nmf_residual']


def test_its_layers_are_those_it_was_given():
    explainer = EXPLAINERS.build(dict(type='PyramidFFAM', layer='a', coarse_layer='b'))
    assert explainer.layers == ('a', 'b')
    assert EXPLAINERS.build('FFAM').layers == ('stride4',)


@pytest.mark.parametrize('count', [0, 2])
def test_a_trace_at_another_number_of_layers_is_refused(trace, count):
    with pytest.raises(NotApplicableError, match=f'stride4 and stride8, received .* {count + 1}:'):
        PyramidFFAM().explain(replace(trace, further=trace.further * count), TARGETS)


@pytest.mark.parametrize('contrast', [0, -1.0, float('nan')])
def test_a_contrast_that_is_none_is_refused(contrast):
    with pytest.raises(InputError, match='contrast > 0'):
        PyramidFFAM(contrast=contrast)
