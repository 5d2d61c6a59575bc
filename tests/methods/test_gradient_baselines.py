"""Baselines made of gradients, on a detector whose gradients can be written down."""

from dataclasses import replace

import pytest
import torch

from explain3d.core.errors import NotApplicableError
from explain3d.core.normalize import min_max
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from tests.helpers.toy_detector import ToyDetector


@pytest.fixture
def toy():
    return ToyDetector()


def voxel_maps(name, trace, target, **options):
    return EXPLAINERS.build(dict(type=name, **options)).voxel_maps(trace, parse_targets(target))


def test_object_gradient_is_omega(toy):
    anchors = toy.anchors(4)
    trace = toy.trace(toy.points(60), anchors)
    expected = min_max(toy.gradient(trace, anchors, 'yaw').abs().sum(dim=2))
    found = voxel_maps('ObjectGradient', trace, 'yaw').saliency['yaw']
    torch.testing.assert_close(found, expected)


def test_gradient_times_input_is_the_size_of_the_contribution(toy):
    anchors = toy.anchors(4)
    trace = toy.trace(toy.points(60), anchors)
    product = toy.gradient(trace, anchors, 'logit') * trace.features.values
    expected = min_max(product.sum(dim=2).abs())
    assert bool((product.sum(dim=2) < 0).any())  # ODAM drops these.
    found = voxel_maps('GradientTimesInput', trace, 'logit').saliency['logit']
    torch.testing.assert_close(found, expected)


def test_integrated_gradients_of_a_linear_head_are_gradient_times_input(toy):
    trace = toy.trace(toy.points(60), toy.anchors(4))
    found = voxel_maps('IntegratedGradients', trace, 'logit', steps=2)
    expected = voxel_maps('GradientTimesInput', trace, 'logit')
    # The magnitude of a sum: logits of either sign, but no change of sign on the way.
    signs = [trace.replay(trace.leaf.detach() * s)[1]['logit'].sign() for s in (0.0, 0.25, 0.75, 1)]
    same = torch.stack(signs).std(dim=0) == 0
    assert same.sum() >= 2
    torch.testing.assert_close(found.saliency['logit'][same], expected.saliency['logit'][same])


def test_integrated_gradients_add_up_to_the_change_of_the_score(toy):
    trace = toy.trace(toy.points(60), toy.anchors(4))
    errors = [
        voxel_maps('IntegratedGradients', trace, 'score', steps=n).info['completeness_error']
        for n in (1, 4, 16)
    ]
    # The midpoint rule: a fourth of the error, or less, for twice the steps.
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 1e-3


def test_integrated_gradients_need_a_replay(toy):
    trace = replace(toy.trace(toy.points(60), toy.anchors(4)), replay=None)
    explainer = EXPLAINERS.build('IntegratedGradients')
    with pytest.raises(NotApplicableError, match=r"Frame '000007': .* trace with \"replay\""):
        explainer.explain(trace, parse_targets('score'))
