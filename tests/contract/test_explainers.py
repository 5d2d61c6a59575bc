"""One table of cases that every registered explainer runs through."""

import copy
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError, NotApplicableError
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS
from tests.helpers.toy_detector import ToyDetector, detached

#: The configurations to check of each explainer. A new explainer has to be entered here.
CASES = {
    'ChannelSum': [{}],
    'Contribution': [{}, {'contrast': 1.0, 'upsampling': 'manhattan', 'k': 4}],
    'FFAM': [
        {},
        {'loss': 'kl', 'rank': 3},
        {'init': 'random', 'concepts': False, 'radius': 1, 'k': 3},
        {'negative': 'shift', 'warm_start': True},
        {'reference': True},
    ],
    'GradCAM': [{}],
    'GradientTimesInput': [{}],
    'IntegratedGradients': [{'steps': 3}, {'steps': 1, 'k': 4}],
    'ODAM': [{}],
    'ObjectGradient': [{}],
    'OccAM': [
        {'samples': 12, 'density': [0.5], 'tolerance': None},
        {'samples': 30, 'check_every': 5, 'tolerance': 0.3, 'voxel_size': 0.5},
    ],
    'PyramidFFAM': [{}, {'contrast': 1.0, 'rank': 3, 'upsampling': 'manhattan'}],
    'RandomMap': [{}],
}
#: Those that do not look at the features or gradients, and cannot be disturbed by them.
BLIND = {'OccAM', 'RandomMap'}

TARGETS = parse_targets(['all', 'all_abs', 'score', 'yaw', 'size'])


def config(name, options):
    # The toy has 6 channels.
    rank = {'rank': 4} if name.endswith('FFAM') and not options.get('reference') else {}
    return {'type': name, **rank, **options}


CONFIGS = [config(name, options) for name, cases in CASES.items() for options in cases]
LOOKING = [cfg for cfg in CONFIGS if cfg['type'] not in BLIND]


def label(cfg):
    return '-'.join(str(v) for v in cfg.values())


every = pytest.mark.parametrize('cfg', CONFIGS, ids=label)
every_looking = pytest.mark.parametrize('cfg', LOOKING, ids=label)


@pytest.fixture
def toy():
    return ToyDetector()


def make(toy, k=5, n=80):
    return doubled(toy.trace(toy.points(n), toy.anchors(k)))


def doubled(trace):
    """A method of two layers gets the same one twice."""
    return replace(trace, further=(replace(trace, further=()),))


def explain(cfg, trace, targets=TARGETS):
    return EXPLAINERS.build(dict(cfg)).explain(doubled(trace), targets)


def check(maps, targets, k, n):
    """The promises of ``Explainer.explain``."""
    assert list(maps.saliency) == [target.name for target in targets]
    for values in maps.saliency.values():
        assert values.shape == (k, n)
        assert torch.isfinite(values).all()
        assert (values >= 0).all()
        assert not values.requires_grad
    for extra in (maps.global_map, maps.concepts):
        if extra is not None:
            assert extra.shape[-1] == n
            assert torch.isfinite(extra).all()
            assert (extra >= 0).all()
    json.dumps(maps.info, allow_nan=False)


def same(a, b):
    for name, values in a.saliency.items():
        assert torch.equal(values, b.saliency[name])
    for x, y in ((a.global_map, b.global_map), (a.concepts, b.concepts)):
        assert (x is None) == (y is None)
        assert x is None or torch.equal(x, y)
    assert a.info == b.info


def test_every_explainer_is_in_the_table():
    # Other tests register explainers of their own.
    ours = {n for n in EXPLAINERS if EXPLAINERS.get(n).__module__.startswith('explain3d.')}
    assert set(CASES) == ours


@every
def test_shapes_and_values(cfg, toy):
    maps = explain(cfg, make(toy))
    check(maps, TARGETS, 5, 80)
    # Methods that rectify may find nothing in favour of one target, but not of all.
    assert any(values.any() for values in maps.saliency.values())


@every
def test_deterministic_and_works_inside_no_grad(cfg, toy):
    first = explain(cfg, make(toy))
    with torch.no_grad():
        same(first, explain(cfg, make(toy)))
    if not cfg.get('warm_start'):
        explainer, trace = EXPLAINERS.build(dict(cfg)), make(toy)
        same(explainer.explain(trace, TARGETS), explainer.explain(trace, TARGETS))


@every
def test_rows_and_a_dense_tensor_are_the_same_layer(cfg, toy):
    rows, dense = explain(cfg, make(toy)), explain(cfg, make(ToyDetector(dense=True)))
    for name, values in rows.saliency.items():
        torch.testing.assert_close(dense.saliency[name], values)


@every
def test_global_random_numbers_are_left_alone(cfg, toy):
    trace = make(toy)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    explain(cfg, trace)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


def snapshot(trace, model):
    tensors = {
        'points': trace.points,
        'values': trace.features.values,
        'coords': trace.features.coords,
        'boxes': trace.detections.boxes,
        'scores': trace.detections.scores,
        'leaf': trace.leaf,
        **trace.attributes,
        **dict(model.named_parameters()),
        **dict(model.named_buffers()),
    }
    state = {
        name: (t.detach().clone(), t.requires_grad, t.grad_fn, t.grad if t.is_leaf else None)
        for name, t in tensors.items()
    }
    hooks = [(len(m._forward_hooks), len(m._backward_hooks)) for m in model.modules()]
    return tensors, state, {n: m.training for n, m in model.named_modules()}, hooks


def assert_untouched(trace, model, before):
    tensors, state, modes, hooks = before
    after_tensors, after, after_modes, after_hooks = snapshot(trace, model)
    assert {n: id(t) for n, t in tensors.items()} == {n: id(t) for n, t in after_tensors.items()}
    for name, (value, *rest) in state.items():
        assert torch.equal(value, after[name][0]), name
        assert rest == list(after[name][1:]), name
    assert modes == after_modes
    assert hooks == after_hooks


@every
@pytest.mark.parametrize('training', [False, True])
def test_trace_and_model_are_left_as_found(cfg, toy, training):
    toy.train(training)
    trace = make(toy)
    before = snapshot(trace, toy)
    explain(cfg, trace)
    assert_untouched(trace, toy, before)
    explain(cfg, trace)  # The graph is still there.


@every_looking
def test_trace_and_model_are_left_as_found_after_a_failure(cfg, toy):
    trace = make(toy)
    trace.points[3, 1] = float('nan')
    before = snapshot(replace(trace, points=trace.points[:3]), toy)
    with pytest.raises(InputError):
        explain(cfg, trace)
    assert_untouched(replace(trace, points=before[0]['points']), toy, before)
    assert torch.is_grad_enabled()


@every
def test_targets_and_list_are_left_alone_and_come_in_any_order(cfg, toy):
    trace = make(toy)
    targets = list(TARGETS)
    kept = copy.copy(targets)
    forwards = explain(cfg, trace, targets)
    assert targets == kept
    backwards = explain(cfg, trace, targets[::-1])
    assert list(backwards.saliency) == [target.name for target in targets[::-1]]
    for name, values in forwards.saliency.items():
        torch.testing.assert_close(backwards.saliency[name], values)


@every
@pytest.mark.parametrize(
    ('k', 'n'), [(0, 80), (5, 1), (5, 0), (0, 0), (1, 1), (1, 2)], ids=lambda v: str(v)
)
def test_small_frames(cfg, toy, k, n):
    check(explain(cfg, make(toy, k, n)), TARGETS, k, n)


@every
def test_no_voxels_under_the_points(cfg, toy):
    points = toy.points(9)
    points[:, :3] += 1000
    trace = toy.trace(points, toy.anchors(3))
    assert len(trace.features.coords) == 0
    maps = explain(cfg, trace)
    check(maps, TARGETS, 3, 9)
    if cfg['type'] not in BLIND:
        assert not any(values.any() for values in maps.saliency.values())


@pytest.mark.parametrize('name', CASES)
def test_a_thousand_detections(name):
    cfg = config(name, CASES[name][0])
    toy = ToyDetector(spatial_shape=(1, 4, 5))
    targets = parse_targets('all')
    check(explain(cfg, make(toy, 1000, 40), targets), targets, 1000, 40)


@every
def test_settings_are_plain_and_rebuild_the_explainer(cfg, toy):
    trace = make(toy)
    explainer = EXPLAINERS.build(dict(cfg))
    maps = explainer.explain(trace, TARGETS)
    settings = json.loads(json.dumps(explainer.settings(), allow_nan=False))
    assert settings['type'] == cfg['type']
    assert {'layer', 'seed'} <= settings.keys()
    again = EXPLAINERS.build(dict(settings))
    same(maps, again.explain(trace, TARGETS))
    assert again.settings() == settings


def some_of(replayed, chosen):
    leaf, attributes = replayed
    return leaf, {name: values[chosen] for name, values in attributes.items()}


@every_looking
def test_a_detection_does_not_depend_on_its_neighbours_in_the_list(cfg, toy):
    points, anchors = toy.points(80), toy.anchors(5)
    whole = toy.trace(points, anchors)
    chosen = torch.tensor([3, 1])
    part = replace(
        whole,
        detections=whole.detections[chosen],
        attributes={name: values[chosen] for name, values in whole.attributes.items()},
        replay=lambda value: some_of(whole.replay(value), chosen),
    )
    maps, some = explain(cfg, whole), explain(cfg, part)
    for name, values in some.saliency.items():
        torch.testing.assert_close(values, maps.saliency[name][chosen])


@every_looking
def test_points_may_come_in_any_order(cfg, toy):
    trace = make(toy)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    maps = explain(cfg, trace)
    shuffled = explain(cfg, replace(trace, points=trace.points[order]))
    for name, values in shuffled.saliency.items():
        assert torch.equal(values, maps.saliency[name][:, order])


@every
def test_a_hosts_autocast_changes_nothing(cfg, toy):
    trace = make(toy)
    maps = explain(cfg, trace)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        same(maps, explain(cfg, trace))


@every
def test_half_precision_features_are_explained_in_single(cfg, toy):
    trace = make(toy)
    half = replace(trace, features=replace(trace.features, values=trace.features.values.half()))
    maps = explain(cfg, half)
    check(maps, TARGETS, 5, 80)
    assert all(values.dtype == torch.float32 for values in maps.saliency.values())


@every_looking
def test_a_detached_head_is_not_explained(cfg, toy):
    with pytest.raises(NotApplicableError, match=r"Frame '000007': Expected .* no graph"):
        explain(cfg, detached(make(toy)))


@every_looking
def test_a_missing_attribute_is_named(cfg, toy):
    trace = make(toy)
    del trace.attributes['yaw']
    with pytest.raises(NotApplicableError, match=r"Frame '000007': .*\['yaw'\]"):
        explain(cfg, trace)


@every_looking
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
@pytest.mark.parametrize('where', ['points', 'features'])
def test_input_that_is_not_finite_names_the_frame(cfg, toy, where, bad):
    trace = make(toy)
    (trace.points if where == 'points' else trace.features.values)[2, 1] = bad
    with pytest.raises(InputError, match=r"Frame '000007': Expected a finite"):
        explain(cfg, trace)
