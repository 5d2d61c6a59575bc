"""A borrowed model comes back as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from explain3d.core.session import frozen_evaluation, overridden


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout())
        self.layers[0].bias.requires_grad_(False)
        self.layers[1].eval()
        self.register_buffer('steps', torch.zeros(2))

    def train(self, mode=True):
        raise AssertionError('the mode must be set without the methods of the model')


def snapshot(model):
    return dict(
        training=[m.training for m in model.modules()],
        requires_grad=[p.requires_grad for p in model.parameters()],
        state={name: value.clone() for name, value in model.state_dict().items()},
        identities=[id(b) for b in model.buffers()],
        random=(random.random, random.getstate()),
        numpy=np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch=torch.get_rng_state().tolist(),
    )


def assert_same(before, after):
    for name, value in before.pop('state').items():
        torch.testing.assert_close(after['state'][name], value, rtol=0, atol=0)
    after.pop('state')
    assert before == after


@pytest.mark.parametrize('fails', [False, True])
def test_everything_is_put_back(fails):
    model = Model()
    before = snapshot(model)
    try:
        with frozen_evaluation(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            model.steps.add_(1)
            model.layers[1].running_mean = torch.ones(3)
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert_same(before, snapshot(model))


def test_activations_have_a_graph_under_no_grad_and_parameters_none():
    model = Model()
    inputs = torch.rand(2, 3, requires_grad=True)
    with torch.no_grad(), frozen_evaluation(model):
        out = model.layers(inputs).sum()
    out.backward()
    assert inputs.grad is not None
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize('fails', [False, True])
def test_a_method_is_shadowed_for_one_instance_only(fails):
    one, other = Model(), Model()
    try:
        with overridden(one, 'extra_repr', lambda: 'mine'):
            assert one.extra_repr() == 'mine'
            assert other.extra_repr() == ''
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert one.extra_repr() == ''
    assert 'extra_repr' not in vars(one)


def test_an_attribute_of_the_instance_comes_back():
    model = Model()
    model.note = 'old'
    with overridden(model, 'note', 'new'):
        assert model.note == 'new'
    assert model.note == 'old'
