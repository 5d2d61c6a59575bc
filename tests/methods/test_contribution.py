"""Contribution, on a detector whose gradients can be written down."""

import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.core.targets import parse_targets
from explain3d.core.upsampling import find_neighbours
from explain3d.methods import EXPLAINERS, Contribution
from tests.helpers.toy_detector import ToyDetector


@pytest.fixture
def case():
    toy = ToyDetector()
    anchors = toy.anchors(4)
    return toy, anchors, toy.trace(toy.points(60), anchors)


def by_hand(toy, anchors, trace, attribute, contrast):
    """Phi(sum_c |G_mc F_mc|)^contrast in float64, object by object."""
    gradient = toy.gradient(trace, anchors, attribute).double()
    features = trace.features.values.double()
    rows = []
    for G in gradient:
        size = sum(G[:, c].abs() * features[:, c] for c in range(features.shape[1]))
        rows.append(((size - size.min()) / (size.max() - size.min())) ** contrast)
    return torch.stack(rows)


@pytest.mark.parametrize('contrast', [1.0, 1.5])
def test_each_channel_is_weighted_by_its_own_gradient(case, contrast):
    toy, anchors, trace = case
    expected = by_hand(toy, anchors, trace, 'yaw', contrast)
    maps = Contribution(contrast=contrast).voxel_maps(trace, parse_targets('yaw'))
    torch.testing.assert_close(maps.saliency['yaw'].double(), expected, atol=1e-6, rtol=1e-5)


def test_nothing_cancels(case):
    toy, anchors, trace = case
    signed = toy.gradient(trace, anchors, 'logit') * trace.features.values
    assert bool((signed.sum(dim=2).abs() < signed.abs().sum(dim=2) - 1e-4).any())
    ours = Contribution(contrast=1.0).voxel_maps(trace, parse_targets('logit')).saliency['logit']
    other = EXPLAINERS.build('GradientTimesInput').voxel_maps(trace, parse_targets('logit'))
    assert not torch.allclose(ours, other.saliency['logit'], atol=1e-2)


def test_a_channel_that_does_not_concern_the_detection_does_not_count():
    """Where FFAM's product of two sums does not tell the channels apart."""
    toy = ToyDetector()
    with torch.no_grad():
        toy.head[:, 0] = 0
    anchors = toy.anchors(3)
    trace = toy.trace(toy.points(60), anchors)
    targets = parse_targets('size')
    before = Contribution().voxel_maps(trace, targets).saliency['size']
    trace.features.values[:, 0] += torch.linspace(0, 9, len(trace.features.values))
    after = Contribution().voxel_maps(trace, targets).saliency['size']
    torch.testing.assert_close(after, before)
    channel_sum = EXPLAINERS.build('ChannelSum')
    changed = channel_sum.voxel_maps(trace, targets).saliency['size']
    assert not torch.allclose(changed, before, atol=1e-2)


def test_the_way_to_the_points_is_by_the_distance_to_the_centres(case):
    _, _, trace = case
    maps = Contribution().voxel_maps(trace, parse_targets('all'))
    table = find_neighbours(trace.points, trace.features, 2, 16, 'gaussian')
    found = Contribution().explain(trace, parse_targets('all'))
    torch.testing.assert_close(found.saliency['all'], table.apply(maps.saliency['all']))


def test_the_last_sparse_layer_is_the_default():
    assert Contribution().layer == 'stride8'


@pytest.mark.parametrize('contrast', [0, -1.5, float('nan')])
def test_a_contrast_that_turns_the_map_around_is_refused(contrast):
    with pytest.raises(InputError, match='Expected a contrast > 0'):
        Contribution(contrast=contrast)
