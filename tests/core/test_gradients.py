from dataclasses import replace

import pytest
import torch

from explain3d.core.errors import InputError, NotApplicableError
from explain3d.core.gradients import (
    absolute_sum,
    attribute_gradients,
    plan_backwards,
    reduce_gradients,
)
from explain3d.core.structures import ATTRIBUTES
from explain3d.core.targets import Target, parse_targets
from tests.helpers.toy_detector import ToyDetector, detached


@pytest.fixture(params=[False, True], ids=['rows', 'dense'])
def toy(request):
    return ToyDetector(dense=request.param)


def make(toy, k=4, n=60):
    anchors = toy.anchors(k)
    return toy.trace(toy.points(n), anchors), anchors


@pytest.mark.parametrize('name', ATTRIBUTES)
def test_one_attribute_is_the_formula(toy, name):
    trace, anchors = make(toy)
    expected = toy.gradient(trace, anchors, name)
    targets = parse_targets(name)
    for k, gradients in attribute_gradients(trace, targets):
        (gradient,) = gradients.of(targets[0])
        torch.testing.assert_close(gradient, expected[k])


def test_a_sum_turns_the_gradient_of_negative_attributes_around(toy):
    trace, anchors = make(toy)
    (target,) = parse_targets('all')
    terms = [
        trace.attributes[n].detach().sign()[:, None, None] * toy.gradient(trace, anchors, n)
        for n in target.attributes
    ]
    expected = torch.stack(terms).sum(dim=0).abs().sum(dim=-1)
    assert {-1.0, 1.0} <= set(trace.attributes['x'].sign().tolist())
    torch.testing.assert_close(reduce_gradients(trace, [target])['all'], expected)


def test_abs_sums_the_attributes_maps(toy):
    trace, anchors = make(toy)
    (target,) = parse_targets('all_abs')
    expected = sum(toy.gradient(trace, anchors, n).abs().sum(dim=-1) for n in target.attributes)
    torch.testing.assert_close(reduce_gradients(trace, [target])['all_abs'], expected)


def shifted(trace, name, offset):
    """The same detection standing elsewhere: an attribute moved by a constant."""
    return replace(trace, attributes={**trace.attributes, name: trace.attributes[name] + offset})


def test_abs_does_not_depend_on_where_the_object_stands_and_the_sum_does(toy):
    trace, _ = make(toy)
    there = shifted(trace, 'y', -100.0)
    targets = parse_targets(['all', 'all_abs'])
    here, moved = reduce_gradients(trace, targets), reduce_gradients(there, targets)
    assert torch.equal(here['all_abs'], moved['all_abs'])
    assert not torch.allclose(here['all'], moved['all'])


def test_an_attribute_of_exactly_zero_has_a_gradient_alone_and_none_in_a_sum(toy):
    trace, anchors = make(toy, k=1)
    trace = shifted(trace, 'yaw', -trace.attributes['yaw'].detach())
    alone, summed = Target('alone', ('yaw',), 'abs'), Target('summed', ('yaw',), 'sum')
    maps = reduce_gradients(trace, [alone])
    torch.testing.assert_close(maps['alone'], toy.gradient(trace, anchors, 'yaw').abs().sum(-1))
    assert not reduce_gradients(trace, [summed])['summed'].any()


def test_the_order_of_a_sum_of_gradients_does_not_matter_for_how_it_is_computed(toy):
    """Assembled from single attributes or by a pass of its own, a sum is the same."""
    trace, _ = make(toy)
    alone = reduce_gradients(trace, parse_targets('all'))['all']
    together = reduce_gradients(trace, parse_targets(['all', 'all_abs']))['all']
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize(
    ('spec', 'passes'),
    [
        ('all', 1),
        ('yaw', 1),
        ('all_abs', 8),
        (['all', 'all_abs'], 8),
        (['all', 'all_abs', 'center', 'size', 'box', 'x', 'yaw'], 8),
        (['all', 'score'], 2),
        (['center', 'size', 'box', 'x', 'y', 'z'], 5),
        ([['x', 'y'], ['y', 'z'], ['x', 'z'], ['x', 'y', 'z']], 3),
        ([['x', 'y'], {'name': 'again', 'attributes': ['y', 'x']}], 1),
    ],
)
def test_no_more_backward_passes_than_needed(toy, spec, passes, monkeypatch):
    trace, _ = make(toy, k=3)
    count = 0
    original = torch.autograd.grad

    def counting(*args, **kwargs):
        nonlocal count
        count += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, 'grad', counting)
    targets = parse_targets(spec)
    maps = reduce_gradients(trace, targets)
    assert count == passes * 3
    assert sum(map(len, plan_backwards(targets))) == passes
    monkeypatch.undo()
    for target in targets:
        alone = reduce_gradients(trace, [target])
        torch.testing.assert_close(maps[target.name], alone[target.name])


def test_any_reducer_gets_the_signed_gradient(toy):
    trace, anchors = make(toy)
    out = reduce_gradients(trace, parse_targets('l'), lambda G: G.sum(dim=1).relu())['l']
    torch.testing.assert_close(out, toy.gradient(trace, anchors, 'l').sum(dim=-1).relu())


def test_absolute_sum():
    gradient = torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    assert torch.equal(absolute_sum(gradient), torch.tensor([3.0, 0.5]))


def test_works_inside_no_grad_and_touches_no_grad_field(toy):
    trace, _ = make(toy)
    with torch.no_grad():
        first = reduce_gradients(trace, parse_targets('all'))['all']
    assert torch.equal(first, reduce_gradients(trace, parse_targets('all'))['all'])
    assert trace.leaf.grad is None
    assert all(p.grad is None for p in toy.parameters())
    assert not first.requires_grad


def test_a_gradient_of_zero_is_a_map_of_zeros(toy):
    """The anchor is out of sight of every voxel: dependent in principle, and zero."""
    far = torch.tensor([[0, 1000, 1000]])
    trace = toy.trace(toy.points(60), far)
    assert not reduce_gradients(trace, parse_targets('all'))['all'].any()


def test_half_precision_gradients_are_summed_in_float32():
    toy = ToyDetector(channels=64)
    trace, anchors = make(toy, k=2)
    scale = 60000 / toy.gradient(trace, anchors, 'x').abs().max()
    half = replace(trace, rows=lambda tensor: (tensor * scale).half())
    out = reduce_gradients(half, parse_targets('x'))['x']
    expected = (toy.gradient(trace, anchors, 'x') * scale).half().float().abs().sum(dim=-1)
    assert expected.max() > 65504
    torch.testing.assert_close(out, expected)


def test_a_detached_head_is_named(toy):
    trace, _ = make(toy)
    with pytest.raises(NotApplicableError, match=r"x, y, .* to depend on the layer 'toy\.layer'"):
        reduce_gradients(detached(trace), parse_targets('all'))


def test_an_attribute_from_another_branch_is_named(toy):
    trace, _ = make(toy)
    other = torch.ones(4, requires_grad=True) * 2
    trace = replace(trace, attributes={**trace.attributes, 'h': other})
    assert reduce_gradients(trace, parse_targets('w'))['w'].any()
    with pytest.raises(NotApplicableError, match='Expected h to depend on the layer'):
        reduce_gradients(trace, parse_targets('h'))


def test_a_leaf_without_a_graph_is_refused(toy):
    trace, _ = make(toy)
    with pytest.raises(NotApplicableError, match='no graph leads there'):
        reduce_gradients(replace(trace, leaf=trace.leaf.detach()), parse_targets('x'))


def test_an_attribute_that_the_head_does_not_have_is_named(toy):
    trace, _ = make(toy)
    attributes = {n: a for n, a in trace.attributes.items() if n != 'logit'}
    with pytest.raises(NotApplicableError, match=r"\['logit'\].*delivers only \['h', 'l'"):
        reduce_gradients(replace(trace, attributes=attributes), parse_targets('logit'))


def test_a_gradient_that_is_not_finite_names_the_detection(toy):
    trace, _ = make(toy)
    slope = torch.tensor([1.0, 1.0, 1e38, 1.0])
    steep = trace.attributes['l'] * slope * slope
    trace = replace(trace, attributes={**trace.attributes, 'l': steep})
    with pytest.raises(InputError, match='infinite values for l of detection 2'):
        reduce_gradients(trace, parse_targets('l'))


def test_no_detections_need_no_graph(toy):
    trace = detached(make(toy, k=0)[0])
    assert reduce_gradients(trace, parse_targets('all'))['all'].shape == (
        0,
        len(trace.features.coords),
    )
