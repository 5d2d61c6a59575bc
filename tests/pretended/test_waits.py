"""How often the host waits for a GPU: at most so often a frame, whatever is found in it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from explain3d.core.targets import parse_targets
from explain3d.core.upsampling import find_neighbours
from explain3d.methods import EXPLAINERS
from tests.helpers.toy_detector import ToyDetector

#: Method, and what it may wait for a frame: checks of its input and maps, the sizes of what is
#: found, and one look at the objective in five iterations of the factorisation.
METHODS = {
    'FFAM': (dict(rank=3, max_iter=30), 25),
    'GradCAM': ({}, 12),
    'ODAM': ({}, 12),
    'Contribution': ({}, 12),
    'GradientTimesInput': ({}, 12),
    'IntegratedGradients': (dict(steps=3), 20),
}


def waits(device, step):
    step()  # Constants are copied once.
    device.waits.clear()
    step()
    return Counter(device.waits)


@pytest.mark.parametrize('method', METHODS)
def test_a_method_waits_as_often_for_many_detections_as_for_two(method, here):
    options, most = METHODS[method]
    explainer, toy = EXPLAINERS.build(dict(type=method, **options)), ToyDetector()
    targets = parse_targets(['all', 'score', 'yaw'])
    found = []
    for count in (2, 2, 30):  # Constants are copied in the first.
        trace = toy.trace(toy.points(400), toy.anchors(count))
        here.waits.clear()
        explainer.explain(trace, targets)
        found.append(Counter(here.waits))
    assert found[1] == found[2]
    assert sum(found[1].values()) <= most, here.report()


@pytest.mark.parametrize('mode', ['manhattan', 'gaussian', 'reference'])
def test_the_upsampling_waits_for_its_checks_and_two_sizes(mode, here):
    toy = ToyDetector()
    points = toy.points(600)
    layer = toy.features(points)
    table = find_neighbours(points, layer, k=4, mode=mode)
    assert (table.weight > 0).all(dim=1).any()  # There are more than k to choose from.
    found = waits(here, lambda: find_neighbours(points, layer, k=4, mode=mode))
    assert sum(found.values()) <= 3, here.report()
    maps = torch.rand(5, len(layer.coords))
    assert not waits(here, lambda: table.carry(maps))
    assert sum(waits(here, lambda: table.apply(maps)).values()) == 1  # That they are finite.


def test_weights_come_to_the_cpu_once(here):
    from explain3d.adapters.common.weights import weights_digest

    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(5))).to('cuda:0')
    assert [k for _, k in waits(here, lambda: weights_digest(model)).elements()] == ['d2h']
    with torch.no_grad():
        model[0].weight += 1
    here.waits.clear()
    weights_digest(model)
    assert sorted(kind for _, kind in here.waits.elements()) == ['d2h', 'stream']


def test_a_gradient_that_is_not_finite_is_found_in_one_wait(here):
    from explain3d.core.errors import InputError
    from explain3d.core.gradients import reduce_gradients

    toy = ToyDetector()
    trace = toy.trace(toy.points(200), toy.anchors(6))
    slope = torch.tensor([1.0, 1, 1, 1e38, 1, 1])
    sizes = trace.attributes['l'] * slope * slope
    trace = replace(trace, attributes={**trace.attributes, 'l': sizes})
    here.waits.clear()
    with pytest.raises(InputError, match='detection 3'):
        reduce_gradients(trace, parse_targets(['all_abs']))
    assert len(list(here.waits.elements())) == 1
