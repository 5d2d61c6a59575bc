"""Randomised weights and jittered points, on maps whose similarity is known."""

import math

import pytest
import torch
from torch import nn

from explain3d.core.errors import NotApplicableError
from explain3d.core.structures import Detections, Maps
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS, Explainer
from explain3d.metrics.sanity import jittered, randomisation, similarity, stability
from tests.helpers.toy_detector import ToyDetector

A = torch.tensor([[1.0, 2, 3, 0, 0], [1, 2, 3, 4, 5]])
B = torch.tensor([[3.0, 2, 1, 0, 0], [1, 2, 3, 4, 5]])
REGIONS = torch.tensor([[True, True, True, False, False], [False] * 5])


def test_similarity_over_the_whole_frame_and_in_regions():
    # Ranks, ties shared: 2, 3, 4, 0.5, 0.5 and 4, 3, 2, 0.5, 0.5; their mean is 2.
    expected = (0 + 1 + 0 + 2 * 1.5**2) / (0 + 1 + 4 + 2 * 1.5**2)
    assert similarity(A, B).tolist() == pytest.approx([expected, 1])
    inside = similarity(A, B, REGIONS)
    assert inside[0].item() == pytest.approx(-1)
    assert math.isnan(inside[1].item())
    assert similarity(A[:0], B[:0], REGIONS[:0]).shape == (0,)


def test_constant_maps_have_a_place():
    flat, ramp = torch.ones(1, 4), torch.arange(4.0)[None]
    assert similarity(flat, 2 * flat).item() == 1
    assert similarity(flat, ramp).item() == 0
    assert similarity(ramp, flat, torch.ones(1, 4).bool()).item() == 0


class OfWeights(Explainer):
    """Maps are the weights of a layer: what randomisation shuffles."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def explain(self, trace, targets):
        values = self.weights.detach().abs().clone()[None].expand(len(trace.detections), -1)
        return Maps({t.name: values for t in targets})


@pytest.fixture
def trace():
    toy = ToyDetector()
    found = toy.trace(toy.points(60), toy.anchors(2))
    leaf = found.leaf
    found.replay = lambda _: (leaf, found.attributes)
    return found


def test_shuffled_weights_show_from_the_part_on_that_a_map_looks_at(trace):
    top, bottom = nn.Linear(8, 8), nn.Linear(8, 8)
    explainer, targets = OfWeights(bottom.weight[0]), parse_targets(['score'])
    before = bottom.weight.detach().clone()
    maps = explainer.explain(trace, targets)
    parts = [('top', top), ('bottom', bottom)]
    found = randomisation(explainer, trace, targets, maps, parts)
    assert found['top']['score'].tolist() == pytest.approx([1, 1])
    assert (found['bottom']['score'] < 0.9).all()
    assert torch.equal(bottom.weight, before)
    first = torch.arange(8) < 4
    regions = torch.stack([first, ~first])
    local = randomisation(explainer, trace, targets, maps, parts, regions=regions)
    assert local['bottom']['score'][0] != local['bottom']['score'][1]


def test_a_random_map_does_not_notice_the_weights(trace):
    explainer, targets = EXPLAINERS.build('RandomMap'), parse_targets(['score'])
    maps = explainer.explain(trace, targets)
    found = randomisation(explainer, trace, targets, maps, [('all', nn.Linear(2, 2))])
    assert found['all']['score'].tolist() == pytest.approx([1, 1])


def test_randomisation_needs_a_trace_that_can_be_run_again(trace):
    trace.replay = None
    with pytest.raises(NotApplicableError, match='"replay"'):
        randomisation(EXPLAINERS.build('RandomMap'), trace, [], Maps({}), [])


def detections(boxes, labels):
    return Detections(torch.tensor(boxes), torch.ones(len(boxes)), torch.tensor(labels), ('a', 'b'))


def test_stability_finds_the_same_detection_again():
    here = detections([[0.0, 0, 0, 4, 2, 2, 0], [20, 0, 0, 4, 2, 2, 0]], [0, 0])
    # The first has moved a little, and another class is in its place; the second is gone.
    there = detections([[0.0, 0, 0, 4, 2, 2, 0], [0.2, 0, 0, 4, 2, 2, 0]], [1, 0])
    maps = torch.tensor([[1.0, 2, 3], [1, 2, 3]])
    found = stability(maps, here, torch.tensor([[3.0, 2, 1], [1, 2, 3]]), there)
    assert found[0].item() == pytest.approx(1)
    assert math.isnan(found[1].item())
    assert stability(maps, here, maps[:0], there[:0]).isnan().all()
    inside = torch.tensor([[True, True, False], [True, True, True]])
    swapped = torch.tensor([[3.0, 2, 1], [2, 1, 3]])
    assert stability(maps, here, swapped, there).tolist()[0] == pytest.approx(0.5)
    assert stability(maps, here, swapped, there, regions=inside).tolist()[0] == pytest.approx(-1)


def test_jitter_moves_places_alone_and_as_much_as_asked_for():
    points = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    moved = jittered(points, 0.02, seed=3)
    assert torch.equal(moved[:, 3], points[:, 3])
    assert (moved - points)[:, :3].std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(moved, jittered(points, 0.02, seed=3))
    assert not torch.equal(moved, jittered(points, 0.02, seed=4))
