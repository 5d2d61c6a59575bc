"""Frames explained with what the host's own pass left: as by a second pass, and without one."""

import copy
import logging
from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny_detectors as tiny
import torch
from test_hook import bits, run
from test_tracer import state_of
from tiny_detectors import wider
from torch import nn

from explain3d.adapters.common.later_graph import LaterGraph
from explain3d.adapters.common.replay import Replays
from explain3d.adapters.mmdet3d.frames import detections_of, one_frame
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.errors import NotApplicableError
from explain3d.core.gradients import reduce_gradients
from explain3d.core.targets import parse_targets

EXPLAINER = dict(type='FFAM', rank=4)


def build(name='second', change=None):
    model = tiny.build(wider(tiny.MODELS[name]()))
    if change is not None:
        change(model)
    return model


def cloud(seed):
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor([0, -25.6, -2.5, 0]), torch.tensor([51.2, 25.6, 0.5, 1])
    return low + torch.rand(400, 4, generator=generator) * (high - low)


def batches(*sizes):
    found, start = [], 0
    for size in sizes:
        seeds = range(start, start + size)
        found.append(tiny.batch(*map(cloud, seeds), names=[f'{seed:06d}' for seed in seeds]))
        start += size
    return found


@pytest.fixture
def passes(monkeypatch):
    """The passes with a graph that tracers make, one entry each: its model."""
    made, real = [], Tracer._pass

    def counting(self, *args):
        made.append(self.model)
        return real(self, *args)

    monkeypatch.setattr(Tracer, '_pass', counting)
    return made


def with_second_passes(monkeypatch, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.setattr(Tracer, 'recording', lambda self: nullcontext(None))
        return run(*args, **kwargs)


@pytest.mark.parametrize(
    ('name', 'layer'),
    [('second', 'stride4'), ('second', 'neck'), ('centerpoint_voxel', 'bev')],
)
def test_explanations_are_those_of_a_second_pass(name, layer, passes, monkeypatch, tmp_path):
    method = EXPLAINER if layer == 'stride4' else dict(type='GradCAM')
    model, explainer = build(name), dict(method, layer=layer)
    frames = batches(1, 1, 2)
    with torch.no_grad():
        plain = [s for b in frames for s in model.test_step(copy.deepcopy(b))]
    expected = with_second_passes(monkeypatch, model, tmp_path / 'a', frames, explainer=explainer)
    assert len(passes) == 4
    passes.clear()
    found = run(model, tmp_path / 'b', frames, explainer=explainer)
    assert len(passes) == 1  # The first frame's, which finds out how far the head looks.
    for before, a, b in zip(plain, expected, found, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(bits(before), bits(b), strict=True))
        for target, saliency in a.explanation.maps.saliency.items():
            assert saliency.any()
            # Passes over several frames round differently.
            torch.testing.assert_close(
                b.explanation.maps.saliency[target], saliency, atol=1e-4, rtol=1e-3
            )
    for a, b in list(zip(expected, found, strict=True))[:2]:
        assert torch.equal(a.explanation.saliency, b.explanation.saliency)


def test_in_inference_mode(passes, tmp_path):
    model = build()
    expected = run(model, tmp_path / 'a', batches(1, 1))
    with torch.inference_mode():
        found = run(model, tmp_path / 'b', batches(1, 1))
    assert len(passes) == 2
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.explanation.saliency, b.explanation.saliency)


@pytest.mark.parametrize('fails', [False, True])
def test_the_model_is_left_as_found(fails, tmp_path):
    model = build()
    before = state_of(model)
    if fails:
        calls = []

        def explode(_module, _inputs):
            calls.append(1)
            if len(calls) > 3:  # The probe, the first frame and its second pass come first.
                raise MemoryError

        handle = model.neck.register_forward_pre_hook(explode)
        with pytest.raises(MemoryError):
            run(model, tmp_path, batches(1, 1), explainer=EXPLAINER)
        handle.remove()
    else:
        run(model, tmp_path, batches(1, 2), explainer=EXPLAINER)
    assert state_of(model) == before


class InPlace(nn.Module):
    """Doubles a map where it is."""

    def forward(self, value):
        return value.mul_(2) if not value.requires_grad else value * 2


def in_place(model):
    model.backbone = nn.Sequential(InPlace(), model.backbone).eval()


def twice(model):
    head = model.bbox_head
    predict = head.predict

    def again(*args, **kwargs):
        predict(*args, **kwargs)
        return predict(*args, **kwargs)

    head.predict = again


def in_training(model):
    model.neck.training = True


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (in_place, 'writes into what the layer'),
        (in_training, 'in training mode'),
        (twice, 'ran not once'),
    ],
)
def test_a_second_pass_where_the_first_does_not_serve(
    change, reason, passes, caplog, monkeypatch, tmp_path
):
    model, explainer = build(), dict(type='GradCAM', layer='bev')
    change(model)
    frames = batches(1, 1, 1)
    expected = with_second_passes(monkeypatch, model, tmp_path / 'a', frames, explainer=explainer)
    passes.clear()
    with caplog.at_level(logging.INFO, logger='explain3d'):
        found = run(model, tmp_path / 'b', frames, explainer=explainer)
    assert len(passes) == 3
    lines = [m for m in caplog.messages if 'a second pass for a frame, since' in m]
    assert len(lines) == 1
    assert reason in lines[0]
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.explanation.saliency, b.explanation.saliency)


def test_a_layer_without_windows_has_second_passes_and_one_line(passes, caplog, tmp_path):
    model = tiny.build(tiny.pointpillars())
    frames = [tiny.batch(tiny.cloud(seed), names=[str(seed)]) for seed in (0, 1)]
    with caplog.at_level(logging.INFO, logger='explain3d'):
        run(model, tmp_path, frames, explainer=dict(type='GradCAM', layer='pillars'))
    assert len(passes) == 2
    assert sum('a second pass over each frame' in m for m in caplog.messages) == 1


class Scene:
    """A detector that knows its windows, and a frame with what its own pass left."""

    def __init__(self, layer='stride4'):
        self.model = build()
        self.tracer = Tracer(self.model, layer)
        self.trace(0)
        self.trace_, self.second = self.trace(1), self.trace(1, recorded=False)

    def trace(self, seed, recorded=True):
        with torch.no_grad():
            data = self.model.data_preprocessor(batches(1)[0] | tiny.batch(cloud(seed)), False)
            frame = one_frame(data['inputs'], 0, 1)
            with self.tracer.recording() if recorded else nullcontext() as notes:
                sample = self.model(**data, mode='predict')[0]
        first = None if notes is None else notes.frame(0, 1)
        detections = detections_of(sample, tiny.CLASSES, str(seed))[:5]
        return self.tracer.trace(self.model.predict, frame, sample, detections, str(seed), first)


@pytest.mark.parametrize('layer', ['stride4', 'neck'])
def test_whoever_differentiates_makes_the_pass_run_once(layer, passes):
    scene = Scene(layer)
    trace, second = scene.trace_, scene.second
    assert len(passes) == 2  # Of the first frame, and of the one to compare with.
    assert torch.equal(trace.leaf, second.leaf)
    for name, expected in second.attributes.items():
        assert torch.equal(trace.attributes[name], expected)
        for k in (0, 3):
            got, want = (
                torch.autograd.grad(t.attributes[name][k], t.leaf, retain_graph=True)[0]
                for t in (trace, second)
            )
            assert want.any()
            assert torch.equal(got, want)
    assert len(passes) == 3


def test_gradients_where_windows_fail_on_the_way(passes, monkeypatch):
    scene = Scene()
    targets = parse_targets(['all', 'yaw'])
    expected = reduce_gradients(replace(scene.second, gradients=None), targets)
    monkeypatch.setattr(type(scene.trace_.gradients._pass), 'run', None)
    found = reduce_gradients(scene.trace_, targets)
    assert scene.trace_.gradients._failed
    for name in expected:
        assert torch.equal(found[name], expected[name])
    assert len(passes) == 3
    assert not scene.tracer.windows.ready
    assert scene.trace(1).gradients is None


def test_rows_of_the_later_pass_may_come_in_another_order():
    scene = Scene()
    order = torch.randperm(len(scene.second.leaf), generator=torch.Generator().manual_seed(0))
    replay = scene.trace_.replay
    leaf, attributes = replay.first()
    known = replace(leaf, tensor=leaf.tensor.detach()[order].requires_grad_())
    known.indices = leaf.indices[order]
    later = LaterGraph(lambda: (leaf, attributes), known)
    values = {name: value.detach() for name, value in attributes.items()}
    joined = later.attributes(values)
    got = torch.autograd.grad(joined['score'][0], known.tensor)[0]
    want = torch.autograd.grad(attributes['score'][0], leaf.tensor, retain_graph=True)[0]
    assert torch.equal(got, want[order])


def test_what_does_not_depend_on_the_leaf_has_no_gradient():
    leaf = copy.copy(Scene().trace_)
    known = type('Leaf', (), dict(tensor=leaf.leaf, indices=None))
    later = LaterGraph(lambda: (known, {'a': torch.ones(2)}), known)
    joined = later.attributes({'a': torch.ones(2)})
    assert torch.autograd.grad(joined['a'][0], leaf.leaf, allow_unused=True) == (None,)


def test_features_in_another_order_are_refused(monkeypatch):
    scene = Scene()
    replay = scene.trace_.replay
    replay(scene.trace_.leaf.detach())
    real = Replays.first(replay)
    turned = replace(real[0], indices=real[0].indices.flip(0))
    monkeypatch.setattr(replay, '_run', lambda read, value: (turned, real[1]))
    with pytest.raises(NotApplicableError, match="Frame '1': the voxels .* another order"):
        replay(scene.trace_.leaf.detach())
