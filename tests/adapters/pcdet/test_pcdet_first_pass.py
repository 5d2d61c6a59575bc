"""Frames explained with what OpenPCDet's own pass left: as by a second pass, and without one."""

import logging
from contextlib import nullcontext

import pcdet_scenes as scenes
import pytest
import torch
from test_pcdet_attachment import attach, run
from test_pcdet_two_stage import ROI_HEAD
from test_pcdet_windows import widened

from explain3d.adapters.pcdet.tracer import Tracer


@pytest.fixture
def passes(monkeypatch):
    """The passes with a graph that tracers make, one entry each."""
    made, real = [], Tracer._pass

    def counting(self, *args):
        made.append(self.layer.name)
        return real(self, *args)

    monkeypatch.setattr(Tracer, '_pass', counting)
    return made


def everything(model):
    """What of a model's modules a pass could leave changed, but for their last outputs."""
    return [
        (sorted(vars(m)), len(m._forward_hooks) + len(m._forward_pre_hooks), m.training)
        for m in model.modules()
    ]


def clouds(model, *seeds):
    return scenes.batch(model, *map(scenes.cloud, seeds))


@pytest.mark.parametrize('name', ['second', 'centerpoint'])
def test_explanations_are_those_of_a_second_pass(pcdet_host, name, passes, monkeypatch):
    model = scenes.build(name, widened)
    batches = [clouds(model, 1), clouds(model, 2), clouds(model, 3, 4)]
    plain = [run(model, batch) for batch in batches]
    before = everything(model)
    with monkeypatch.context() as patch:
        patch.setattr(Tracer, 'recording', lambda self: nullcontext(None))
        attachment, expected = attach(model)
        with attachment:
            for batch in batches:
                run(model, batch)
    assert len(passes) == 4
    passes.clear()
    attachment, found = attach(model)
    with attachment:
        for batch, (frames, recall) in zip(batches, plain, strict=True):
            during = run(model, batch)
            assert during[1] == recall
            for a, b in zip(frames, during[0], strict=True):
                assert a.keys() == b.keys()
                assert all(torch.equal(a[key], b[key]) for key in a)
    assert len(passes) == 1  # The first frame's, which finds out how far the head looks.
    assert everything(model) == before
    for a, b in zip(expected, found, strict=True):
        assert a.saliency.any()
        torch.testing.assert_close(b.saliency, a.saliency, rtol=1e-3, atol=1e-5)
    assert torch.equal(expected[1].saliency, found[1].saliency)


def test_a_method_of_two_layers_has_no_second_pass_for_either(pcdet_host, passes):
    model = scenes.build('second', widened)
    batches = [clouds(model, 1), clouds(model, 2, 3)]
    parts = []
    for layer in ('stride4', 'stride8'):
        attachment, found = attach(
            model, explainer=dict(type='FFAM', rank=4, layer=layer, upsampling='gaussian')
        )
        with attachment:
            for batch in batches:
                run(model, batch)
        parts.append(found)
    passes.clear()
    attachment, found = attach(model, explainer=dict(type='PyramidFFAM', rank=4))
    with attachment:
        for batch in batches:
            run(model, batch)
    assert len(passes) == len(set(passes)) == 2  # The first frame's, one for each layer.
    for fine, coarse, both in zip(*parts, found, strict=True):
        assert both.saliency.any()
        expected = (fine.saliency * coarse.saliency) ** 0.6
        torch.testing.assert_close(both.saliency, expected, rtol=1e-3, atol=1e-4)


def test_a_later_pass_for_whoever_differentiates(pcdet_host, passes):
    model = scenes.build('second', widened)
    attachment, _ = attach(model)
    with attachment:
        run(model, clouds(model, 1))
        tracer, found = attachment.worker.tracer, []
        real = tracer.trace
        tracer.trace = lambda *args: found.append(real(*args)) or found[-1]
        run(model, clouds(model, 2))
    (trace,) = found
    assert len(passes) == 1
    leaf, attributes = trace.replay(None)
    for name in ('score', 'x'):
        got = torch.autograd.grad(trace.attributes[name][1], trace.leaf, retain_graph=True)[0]
        want = torch.autograd.grad(attributes[name][1], leaf, retain_graph=True)[0]
        assert want.any()
        assert torch.equal(got, want)
    assert len(passes) == 3


def test_two_stages_have_second_passes_and_one_line(pcdet_host, passes, caplog):
    """A refinement does not come from one cell."""

    def two_stages(config):
        config['MODEL'].update(NAME='VoxelRCNN', ROI_HEAD=ROI_HEAD)

    model = scenes.build('second', two_stages)
    attachment, found = attach(model)
    with caplog.at_level(logging.INFO, logger='explain3d'), attachment:
        run(model, clouds(model, 1))
        run(model, clouds(model, 2))
    assert len(passes) == len(found) == 2
    assert sum('a second pass over each frame' in m for m in caplog.messages) == 1
