"""Zeros, constants, the ends of the range, NaN: exact parts, or an error that says where."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explain3d.core.errors import InputError
from explain3d.lmd import Decomposition, Seed
from tests.lmd.networks import OneOperation, decompose

SEEDS = [Seed('0', split=dict(a=4, b=2))]
NORMS = {
    'instance': lambda: nn.InstanceNorm2d(6),
    'instance affine': lambda: nn.InstanceNorm2d(6, affine=True),
    'group': lambda: nn.GroupNorm(2, 6),
    'layer': lambda: nn.LayerNorm((8, 8)),
    'batch': lambda: nn.BatchNorm2d(6),
    'none': nn.Identity,
}


def network(norm, bias):
    torch.manual_seed(0)
    first = nn.Conv2d(6, 6, 3, padding=1, bias=bias)
    return nn.Sequential(first, NORMS[norm](), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()


def given(kind):
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(2, 6, 8, 8, generator=generator)
    return {
        'zeros': torch.zeros_like(dense),
        'ones': torch.ones_like(dense),
        'one sensor blank': torch.cat([dense[:, :4], torch.zeros_like(dense[:, 4:])], 1),
        '1e-30': dense * 1e-30,
        '1e10': dense * 1e10,
        '1e30': dense * 1e30,
    }[kind]


@pytest.mark.parametrize('rule', ['ratio', 'identity', 'uniform'])
@pytest.mark.parametrize('norm', NORMS)
def test_normalisations_conserve_whatever_comes(norm, rule):
    rules = dict(instance_norm=rule, group_norm=rule, layer_norm=rule)
    for bias in (True, False):
        net = network(norm, bias)
        for kind in ('zeros', 'ones', 'one sensor blank', '1e-30', '1e10', '1e30'):
            x = given(kind)
            with torch.no_grad(), Decomposition(net, SEEDS, ['3'], rules, mode='check') as run:
                out = net(x)
            if not torch.isfinite(out).all():
                assert (norm, kind) in (('group', '1e30'), ('layer', '1e30'))
                with pytest.raises(InputError, match=r"begins at .*_norm in module '1'"):
                    _ = run.outputs
                continue
            assert torch.isfinite(run.outputs['3'].parts).all(), (bias, kind)
            assert run.residual <= 1e-5, (bias, kind)


@pytest.mark.parametrize('rule', ['ratio', 'identity'])
def test_an_untrue_normalisation_still_shows(rule, monkeypatch):
    """Only rounding goes to the bias: a rule that is off by a thousandth does not pass."""
    import explain3d.lmd.rules.norms as norms

    net, x = network('instance', True), given('one sensor blank')
    moments = norms._moments

    def untrue(*args):
        mean, scale = moments(*args)
        return mean, scale * 1.001

    monkeypatch.setattr(norms, '_moments', untrue)
    rules = dict(instance_norm=rule)
    with torch.no_grad(), Decomposition(net, SEEDS, ['3'], rules, mode='check') as run:
        net(x)
    assert run.residual > 1e-4


class OfSum(OneOperation):
    def forward(self, a, b):
        return self.operation(a + b)


ACTIVATIONS = (
    F.relu, F.leaky_relu, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid, F.gelu, F.silu, F.mish,
    torch.sigmoid, torch.tanh, F.softplus, F.logsigmoid, F.elu, F.selu, F.softsign, torch.abs,
    torch.atan, torch.erf, torch.sin, torch.cos, F.tanhshrink, torch.log1p, torch.exp,
)  # fmt: skip


@pytest.mark.parametrize('operation', ACTIVATIONS, ids=lambda f: f.__name__)
def test_activations_conserve_at_the_ends_of_the_range(operation):
    """Wherever the network's own value is finite."""
    numbers = torch.tensor([0.0, 1e-40, -1e-40, 1e-30, -1e-7, 3.0, -3.0, 1e3, -80, 1e15, 1e30])
    args = numbers / 4, numbers * 0.75
    if operation is torch.log1p:
        args = args[0].abs(), args[1].abs()
    if operation is torch.exp:
        args = args[0].clamp(max=30), args[1].clamp(max=30)
    if operation in (torch.sin, torch.cos):
        args = args[0].clamp(-50, 50), args[1].clamp(-50, 50)
    found = decompose(OfSum(operation), *args, mode='check').outputs['']
    assert torch.isfinite(found.value).all()
    assert torch.isfinite(found.parts).all()
    error = (found.parts.double().sum(0) - found.value.double()).abs()
    scale = torch.maximum(found.value.abs(), found.parts.abs().sum(0)).double()
    # torch's own kernels lose digits of results that are far below their input, as GELU's tail.
    scale = torch.maximum(scale, sum(args).abs().clamp(max=1).double())
    assert (error <= 1e-5 * scale.clamp_min(1e-30)).all()


def test_infinite_values_on_purpose_are_the_bias():
    """As logits that a head masks."""

    def operation(x):
        return x.masked_fill(torch.arange(6) > 3, -torch.inf)

    for mode in ('production', 'check'):
        args = torch.randn(2, 6), torch.randn(2, 6)
        run = decompose(OneOperation(operation), *args, mode=mode)
        assert (run.outputs['']['bias'][:, 4:] == -torch.inf).all()
        assert not run.outputs['']['camera'][:, 4:].any()
        if mode == 'check':
            assert run.residual <= 1e-6


@pytest.mark.parametrize('value', [torch.nan, torch.inf, 1e38])
@pytest.mark.parametrize('mode', ['production', 'check'])
def test_values_that_are_not_finite_raise_when_the_outputs_are_read(value, mode):
    net, x = network('none', True), given('ones')
    x[0, 0, 0, 0] = value
    x[1] *= 1e38 if value == 1e38 else 1
    with torch.no_grad(), Decomposition(net, SEEDS, ['3'], mode=mode) as run:
        out = net(x)  # The network goes on as it does without us.
    expected = "begins at .* in module '[0-3]'|Its seeds" if mode == 'check' else "mode='check'"
    if torch.isfinite(out).all():
        assert torch.isfinite(run.outputs['3'].parts).all()
        return
    with pytest.raises(InputError, match=f"'3' has values that are NaN.*({expected})"):
        _ = run.outputs
