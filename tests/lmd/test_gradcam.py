"""Class activation maps against calculations by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from explain3d.core.errors import (
    InputError,
    NotApplicableError,
    UnknownNameError,
    UnknownOperationError,
)
from explain3d.lmd import Decomposition, Seed
from explain3d.lmd.components import Components
from explain3d.lmd.gradcam import class_activation_map, layer_gradients, modality_gradcams
from explain3d.lmd.linearized import LinearNetwork


class Net(nn.Module):
    """Layer A, then v0 gelu(A0) + v1 relu(A1), and an InstanceNorm where asked for."""

    def __init__(self, norm=False, inplace=True):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1)
        self.gelu, self.relu = nn.GELU(), nn.ReLU(inplace)
        self.norm = nn.InstanceNorm2d(2, affine=True) if norm else nn.Identity()
        self.head = nn.Conv2d(2, 1, 1)
        for p in self.parameters():
            nn.init.normal_(p)
        self.double().train()

    def forward(self, x):
        a = self.norm(self.first(x))
        return self.head(torch.cat([self.gelu(a[:, :1]), self.relu(a[:, 1:])], 1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


REGION = torch.zeros(3, 4, dtype=torch.bool)
REGION[1, 1:] = True


def test_map_by_hand():
    activation = torch.tensor([[[1.0, 2.0]], [[3.0, -1.0]]])
    gradient = torch.tensor([[[2.0, 0.0]], [[-1.0, 0.0]]])
    # alpha = (1, -1/2).
    assert class_activation_map(activation, gradient).tolist() == [[0.0, 2.5]]


@pytest.mark.parametrize('inplace', [False, True])
def test_linearized_gradient_by_hand(inplace):
    model, x = Net(inplace=inplace), torch.randn(2, 1, 3, 4).double()
    found = layer_gradients(model, lambda: model(x), ['first'], 'head', REGION)['first']
    a = model.first(x).detach().numpy()
    gelu = np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(a[:, 0])  # gelu(A) / A
    slopes = np.stack([gelu, a[:, 1] > 0], 1)
    weights = model.head.weight.detach().numpy()[0]
    expected = weights * slopes * REGION.numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=0)


def test_the_gradient_of_the_network_is_the_tangent():
    model, x = Net(inplace=False), torch.randn(1, 1, 3, 4).double()
    found = layer_gradients(model, lambda: model(x), ['first'], 'head', REGION, linearized=False)[
        'first'
    ]
    a = model.first(x).detach().requires_grad_()
    out = model.head(torch.cat([nn.functional.gelu(a[:, :1]), a[:, 1:].relu()], 1))
    expected = torch.autograd.grad((out[:, 0] * REGION).sum(), a)[0]
    torch.testing.assert_close(found, expected)
    other = layer_gradients(model, lambda: model(x), ['first'], 'head', REGION)['first']
    assert (found - other).abs().max() > 0.05


@pytest.mark.parametrize(('rule', 'mean'), [('ratio', 1), ('identity', 0), ('uniform', 0)])
def test_normalisations_have_a_constant_deviation(rule, mean):
    model = nn.Sequential(nn.Identity(), nn.InstanceNorm2d(1), nn.Identity()).double()
    x = torch.randn(1, 1, 3, 4).double()
    gradient = layer_gradients(
        model, lambda: model(x), ['0'], '2', REGION, rules={'instance_norm': rule}
    )['0']
    sigma = (x.var(unbiased=False) + 1e-5).sqrt()
    expected = (REGION.double() - mean * REGION.sum() / 12) / sigma
    torch.testing.assert_close(gradient[0, 0], expected)


@pytest.mark.parametrize(
    'norm',
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm([4, 3, 4]),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.BatchNorm2d(4),
    ],
)
def test_normalisations_of_all_kinds_are_linear_maps(norm):
    model = nn.Sequential(nn.Identity(), norm, nn.Conv2d(4, 1, 1)).double().eval()
    for p in model.parameters():
        nn.init.normal_(p)
    x = torch.randn(2, 4, 3, 4).double()
    out = model(x).detach()
    gradient = layer_gradients(model, lambda: model(x), ['0'], '2', REGION)['0']
    # A linear map's value at A is <gradient, A> plus what the constants give: with A taken to be
    # zero after the normalisation only gain and offset remain.
    zero = {k: torch.zeros_like(v) for k, v in model[1].named_parameters() if k == 'weight'}
    with torch.no_grad():
        for k, v in zero.items():
            getattr(model[1], k).copy_(v)
    constant = model(x).detach()
    if isinstance(norm, nn.BatchNorm2d) or getattr(norm, 'track_running_stats', False):
        return  # Their mean is a constant, too: zero here, as they were never trained.
    score = ((out - constant)[:, 0] * REGION).sum()
    torch.testing.assert_close((gradient * x).sum(), score)


def test_values_are_those_of_the_network_bit_by_bit():
    model, x = Net(norm=True), torch.randn(2, 1, 3, 4).double()
    expected = model(x)
    model.eval()
    with torch.no_grad(), LinearNetwork(model, ['first'], 'head') as run:
        assert torch.equal(model(x), expected)
    assert torch.equal(run.value, expected)


@pytest.mark.parametrize('f', [nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus()])
def test_slopes_near_zero_are_derivatives(f):
    model = nn.Sequential(nn.Identity(), f)
    maps = torch.tensor([0.0, 1e-30, 1e-12, 1e-7, -1e-7]).view(1, 1, 1, 5)
    everywhere = torch.ones(1, 5, dtype=torch.bool)
    found = layer_gradients(model, lambda: model(maps), ['0'], '1', everywhere)['0']
    tangent = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    f(tangent).backward()
    assert found.flatten().tolist() == pytest.approx([tangent.grad.item()] * 5, rel=1e-5)


def test_several_layers_at_once_and_the_model_as_found():
    model, x = Net(norm=True), torch.randn(2, 1, 3, 4).double()
    both = layer_gradients(
        model, lambda: model(x), ['first', 'norm'], 'head', lambda out: out[:, 0] > 0
    )
    for layer, gradient in both.items():
        alone = layer_gradients(model, lambda: model(x), [layer], 'head', lambda out: out[:, 0] > 0)
        torch.testing.assert_close(gradient, alone[layer], rtol=0, atol=0)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())


def test_radar_gradcam_weights_the_component():
    parts = torch.randn(3, 2, 2, 3, 4)
    components = Components(parts.sum(0), parts, ('camera', 'radar', 'bias'))
    gradient = torch.randn(2, 2, 3, 4)
    found = modality_gradcams({'l': components}, {'l': gradient})
    assert list(found) == ['camera @ l', 'radar @ l']
    alpha = gradient.sum((2, 3)) / 12
    expected = torch.einsum('bk,bkij->bij', alpha, parts[1]).relu()
    torch.testing.assert_close(found['radar @ l'], expected)


def test_what_does_not_fit_is_refused():
    model, x = Net(), torch.randn(1, 1, 3, 4).double()
    with pytest.raises(UnknownNameError, match='fist'):
        layer_gradients(model, lambda: model(x), ['fist'], 'head', REGION)
    with pytest.raises(InputError, match='region'):
        layer_gradients(model, lambda: model(x), ['first'], 'head', REGION[:2])
    model.spare = nn.Conv2d(1, 1, 1).double()
    with pytest.raises(NotApplicableError, match="does not depend on the layers \\['spare'\\]"):
        layer_gradients(model, lambda: model(x), ['first', 'spare'], 'head', REGION)
    assert not any(m._forward_hooks for m in model.modules())


class Products(nn.Module):
    """Squeeze and excitation, a gate from elsewhere, a square, attention, a shortcut."""

    def __init__(self):
        super().__init__()
        self.fuse = nn.Conv2d(4, 4, 1)
        self.layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.GELU())
        self.squeeze, self.gate = nn.Linear(4, 4), nn.Conv2d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 1, 1)
        for p in self.parameters():
            nn.init.normal_(p)
        self.norm.running_mean.normal_()
        self.double().eval()

    def forward(self, x):
        shared = self.fuse(x)
        x = self.layer(shared)
        x = x * self.squeeze(x.mean((2, 3))).sigmoid()[..., None, None]
        x = x * torch.tanh(self.gate(shared))  # A gate that does not come from the layer.
        x = x + 0.1 * x.square() + x * shared
        cells = x.flatten(2).transpose(1, 2)
        cells = cells + self.attention(cells, cells, cells)[0]
        return self.head(self.norm(cells.transpose(1, 2).unflatten(2, x.shape[2:])))


SEEDS = [Seed('fuse', split=dict(a=3, b=1))]
OVERRIDES = {'layer.*': dict(instance_norm='identity'), 'norm': dict(batch_norm='uniform')}


@pytest.mark.parametrize(
    'rules',
    [
        dict(),
        dict(product='symmetric'),
        dict(activation='none', instance_norm='none'),
        dict(per_module=OVERRIDES),
        dict(product='second', per_module={'layer.1': dict(instance_norm='none')}),
    ],
)
def test_the_gradient_is_that_of_the_engines_linear_map(rules):
    """<gradient, h_m> is the score of h_m, up to the constants that a rule gives to modalities."""
    model, x = Products(), torch.randn(2, 4, 3, 4).double()
    maps, region = [x, torch.randn(2, 4, 3, 4).double()], REGION
    gradient = layer_gradients(
        model, lambda: model(x), ['layer'], 'head', region, rules=rules, seeds=SEEDS
    )['layer']
    # The same linear network at two inputs: constants cancel in the difference.
    record, runs = None, []
    for given in maps:
        options = dict(frozen=record) if record else dict(rules=rules, record=True)
        with (
            torch.no_grad(),
            Decomposition(model, SEEDS, ['head'], capture=['layer', 'fuse'], **options) as run,
        ):
            model(given)
        record = record or run.record
        runs.append(run)
    for name in ('a', 'b'):
        change = {
            path: runs[1].captured[path][name] - runs[0].captured[path][name]
            for path in ('layer', 'fuse')
        }
        score = (runs[1].outputs['head'][name] - runs[0].outputs['head'][name])[:, 0] * region
        # The layer is one way to the output, the shortcut past it the other.
        past = layer_gradients(
            model, lambda: model(x), ['fuse', 'layer'], 'head', region, rules=rules, seeds=SEEDS
        )
        torch.testing.assert_close(past['layer'], gradient)
        torch.testing.assert_close((past['fuse'] * change['fuse']).sum(), score.sum())


def test_a_frozen_gate_is_a_constant_by_hand():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Identity(), nn.Identity()

        def forward(self, x):
            x = self.a(x)
            return self.b(x * x.sigmoid())

    gate, x = Gate(), torch.randn(1, 1, 3, 4).double()

    def gradient(**options):
        return layer_gradients(gate, lambda: gate(x), ['a'], 'b', REGION, **options)['a']

    torch.testing.assert_close(gradient(), (x.sigmoid() * REGION))
    slope = (x.sigmoid() - 0.5) / x
    torch.testing.assert_close(gradient(rules=dict(product='first')), x * slope * REGION)
    tangent = x.sigmoid() * (1 + x * (1 - x.sigmoid()))
    torch.testing.assert_close(gradient(linearized=False), tangent * REGION)


@pytest.mark.parametrize('split', ['uniform', 'sum', 'ratio'])
def test_the_splitting_of_the_bias_does_not_change_the_map(split):
    model, x = Net(norm=True), torch.randn(2, 1, 3, 4).double()
    rules = dict(bias_split=split, per_module={'gelu': dict(bias_split='sum')})
    found = [
        layer_gradients(model, lambda: model(x), ['first'], 'head', REGION, rules=r)['first']
        for r in ({}, rules)
    ]
    assert torch.equal(*found)


def test_rules_of_single_modules_count():
    model, x = Net(norm=True), torch.randn(2, 1, 3, 4).double()

    def gradient(**rules):
        return layer_gradients(model, lambda: model(x), ['first'], 'head', REGION, rules=rules)[
            'first'
        ]

    alone = gradient(per_module={'norm': dict(instance_norm='identity')})
    assert torch.equal(alone, gradient(instance_norm='identity'))
    assert (alone - gradient()).abs().max() > 1e-3
    constant = gradient(per_module={'gelu': dict(module='constant')})
    assert (constant - gradient()).abs().max() > 1e-3


def test_what_is_not_linear_or_has_no_rule_is_refused():
    model, x = Net(norm=True), torch.randn(2, 1, 3, 4).double()
    for rules in (dict(activation='separate'), dict(instance_norm='separate')):
        with pytest.raises((NotApplicableError, UnknownOperationError), match='not linear'):
            layer_gradients(model, lambda: model(x), ['first'], 'head', REGION, rules=rules)
    model.gelu.forward = lambda x: x.abs().sqrt()
    with pytest.raises(UnknownOperationError, match='sqrt'):
        layer_gradients(model, lambda: model(x), ['first'], 'head', REGION)
    assert 'forward' not in vars(model.head)
