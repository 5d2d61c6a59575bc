"""Nonlinear operations: conservation in every form, and a second oracle for each family."""

import math

import mpmath
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explain3d.lmd import Rules
from explain3d.lmd.registry import FUNCTION_RULES

from .networks import OFFSET, TOLERANCE, OneOperation, decompose, inputs

mp = mpmath.mp.clone()
mp.dps = 60


def weight(x, *shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(x)


def heads(x):
    """(2, 4, 6, 6) as queries, keys or values of shape (2, 2 heads, 12, 6)."""
    return x.reshape(2, 2, 12, 6)


def attention_by_hand(x):
    q, k, v = (heads(x) * s for s in (1.0, 0.5, 2.0))
    return torch.softmax(q @ k.transpose(-1, -2) / 2.4, -1) @ v


def squeeze_and_excitation(x):
    squeezed = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), weight(x, 4, 4, 1, 1)))
    return x * torch.sigmoid(squeezed)


def mha(x, **settings):
    torch.manual_seed(3)
    return nn.MultiheadAttention(6, 2, **settings).to(x).eval()


class SelfAttention(nn.Module):
    """What torch's fused kernel computes, if it is given plain tensors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        x = x.flatten(1, 2)
        return self.layer(x, x, x)


class TransformerLayer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation='gelu')

    def forward(self, x):
        return self.layer(x[0])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.model = nn.Transformer(6, 2, 2, 1, 8, batch_first=True)

    def forward(self, x):
        return self.model(x[0], x[1] * 2)


ACTIVATIONS = {
    'relu': lambda x: F.relu(x) + torch.relu(x) + x.relu() + nn.ReLU()(x),
    'relu inplace': lambda x: F.relu(x * 1, inplace=True) + (x * 1).relu_() + nn.ReLU(True)(x + 0),
    'relu_ functional': lambda x: torch.relu_(x * 1) + F.relu(x - 1, True),
    'relu6': lambda x: F.relu6(x * 4) + nn.ReLU6(inplace=True)(x * 5),
    'leaky_relu': lambda x: F.leaky_relu(x, 0.2) + nn.LeakyReLU(0.1, inplace=True)(x + 0),
    'prelu': lambda x: F.prelu(x, weight(x, 4)) + torch.prelu(x, weight(x, 1)),
    'rrelu': lambda x: F.rrelu(x) + nn.RReLU().eval()(x),
    'elu': lambda x: F.elu(x) + F.elu(x, alpha=0.5) + nn.ELU(0.7, inplace=True)(x * 1),
    'selu celu': lambda x: F.selu(x) + F.celu(x, 1.3) + torch.celu(x) + torch.selu_(x * 1),
    'gelu': lambda x: F.gelu(x) + nn.GELU()(x),
    'gelu tanh': lambda x: F.gelu(x, approximate='tanh') + nn.GELU('tanh')(x),
    'silu': lambda x: F.silu(x) + nn.SiLU(inplace=True)(x * 1) + F.silu(x * 1, True),
    'mish': lambda x: F.mish(x) + nn.Mish(inplace=True)(x * 1),
    'hardswish': lambda x: F.hardswish(x * 3) + nn.Hardswish(True)(x * 2),
    'hardsigmoid': lambda x: F.hardsigmoid(x * 3) + nn.Hardsigmoid()(x),
    'hardtanh': lambda x: F.hardtanh(x) + F.hardtanh(x, -0.5, 2) + nn.Hardtanh(0.1, 0.4)(x),
    'sigmoid': lambda x: x.sigmoid() + torch.sigmoid(x) + F.sigmoid(x) + (x * 1).sigmoid_(),
    'tanh': lambda x: x.tanh() + torch.tanh(x) + (x * 1).tanh_() + nn.Tanhshrink()(x),
    'softplus': lambda x: F.softplus(x) + F.softplus(x * 10, beta=2, threshold=5) + F.logsigmoid(x),
    'softsign': lambda x: F.softsign(x) + F.softshrink(x) + F.hardshrink(x, 0.3),
    'threshold': lambda x: F.threshold(x, 0.1, 20.0) + F.threshold(x, -0.5, -3.0),
    'abs': lambda x: abs(x) + x.abs() + torch.abs(x) + (x * 1).abs_(),
    'clamp': lambda x: x.clamp(-0.5, 1) + torch.clamp(x, min=0.2) + x.clamp(max=-0.1),
    'clamp tensors': lambda x: torch.clamp(x, weight(x, 6) - 1, weight(x, 6) + 1),
    'clamp_': lambda x: (x * 1).clamp_(0, 1) + x.clip(-1, 1) + x.clamp_min(0.1).clamp_max(0.4),
    'exp': lambda x: x.exp() + torch.expm1(x) + torch.log1p(x.abs()),
    'waves': lambda x: x.sin() + x.cos() + torch.atan(x) + torch.erf(x),
    'powers': lambda x: x**2 + x.pow(3) + torch.square(x) + x.square_() ** 1,
    'nan_to_num': lambda x: torch.nan_to_num(x),
}
OTHERS = {
    'batch_norm': lambda x: F.batch_norm(x, weight(x, 4), weight(x, 4).abs() + 0.5),
    'batch_norm affine': lambda x: F.batch_norm(
        x, weight(x, 4), weight(x, 4).abs() + 0.5, weight(x, 4), weight(x, 4) + 1, False, 0.1, 1e-3
    ),
    'batch_norm modules': lambda x: (
        nn.BatchNorm2d(4).to(x).eval()(x) + nn.BatchNorm1d(4).to(x).eval()(x.flatten(2)).view_as(x)
    ),
    'instance_norm': lambda x: F.instance_norm(x) + nn.InstanceNorm2d(4, affine=True).to(x)(x),
    'instance_norm affine': lambda x: F.instance_norm(x, weight=weight(x, 4), bias=weight(x, 4)),
    'instance_norm running': lambda x: (
        nn.InstanceNorm2d(4, track_running_stats=True).to(x).eval()(x)
    ),
    'layer_norm': lambda x: (
        F.layer_norm(x, (6, 6), weight(x, 6, 6), weight(x, 6, 6)) + F.layer_norm(x, (6,))
    ),
    'group_norm': lambda x: (
        F.group_norm(x, 2, weight(x, 4), weight(x, 4)) + nn.GroupNorm(4, 4).to(x)(x)
    ),
    'rms_norm': lambda x: F.rms_norm(x, (6,), weight(x, 6)),
    'normalize': lambda x: F.normalize(x) + F.normalize(x, p=1.0, dim=-1),
    'max_pool': lambda x: F.max_pool2d(x, 2) + nn.MaxPool2d(3, 2, 1)(x) + torch.max_pool2d(x, 2),
    'max_pool indices': lambda x: F.max_pool2d(x, 2, return_indices=True),
    'max_pool1d': lambda x: (
        F.max_pool1d(x.flatten(2), 3, 2) + F.adaptive_max_pool1d(x.flatten(2), 17)
    ),
    'max_pool3d': lambda x: (
        F.max_pool3d(x.unsqueeze(1), 2) + F.adaptive_max_pool3d(x.unsqueeze(1), (2, 3, 3))
    ),
    'max_pool unbatched': lambda x: F.max_pool2d(x[0], 2, ceil_mode=True),
    'adaptive_max_pool': lambda x: F.adaptive_max_pool2d(x, 3) + nn.AdaptiveMaxPool2d((3, 3))(x),
    'max': lambda x: x.max(1).values + torch.max(x, dim=1, keepdim=True)[0][:, 0] + x.min(1)[0],
    'max all': lambda x: x.max() + torch.min(x) + x.amax() + x.amin((1, 3)).sum(),
    'amax': lambda x: x.amax(1) + torch.amax(x, dim=(1,)) + x.amax((0, 1), keepdim=True)[0],
    'maximum': lambda x: (
        torch.maximum(x, x.flip(1)) + torch.minimum(x, weight(x, 6)) + torch.max(x, -x)
    ),
    'topk': lambda x: x.topk(2, 1)[0] + torch.topk(x, k=2, dim=1).values,
    'sort': lambda x: (
        x.sort(-1)[0] + torch.sort(x, dim=-1, descending=True).values + x.median(-1, True)[0]
    ),
    'topk gather': lambda x: x.flatten(2).gather(2, x.flatten(2).topk(5, -1).indices),
    'where on itself': lambda x: torch.where(x > 0, x, 0.1 * x) + x * (x > 0.5),
    'squeeze and excitation': squeeze_and_excitation,
    'gate': lambda x: (
        torch.sigmoid(x) * x + x * torch.sigmoid(x.flip(1)) + F.glu(x, 1).repeat(1, 2, 1, 1)
    ),
    'product': lambda x: x * x.flip(1) + x[:, :1] * x + (x * 1).mul_(x),
    'quotient': lambda x: x / x.abs().mean(),
    'matrix product': lambda x: x @ x.transpose(-1, -2) + torch.bmm(x[:, 0], x[:, 1])[:, None],
    'einsum product': lambda x: torch.einsum('bchw,bcwk->bchk', x, x.transpose(2, 3)),
    'softmax': lambda x: x.softmax(1) + torch.softmax(x, 1) * x + F.log_softmax(x, 1),
    'attention by hand': attention_by_hand,
    'sdpa': lambda x: F.scaled_dot_product_attention(heads(x), heads(x) * 2, heads(x) * 3),
    'sdpa masked': lambda x: F.scaled_dot_product_attention(
        heads(x), heads(x), heads(x), attn_mask=weight(x, 12, 12) > -0.5, scale=0.3
    ),
    'sdpa causal': lambda x: F.scaled_dot_product_attention(
        heads(x), heads(x), heads(x), is_causal=True
    ),
    'mha self': SelfAttention,
    'mha cross': lambda x: mha(x)(x[0], x[1], x[1] + 1, need_weights=False)[0],
    'mha biases': lambda x: mha(x, add_bias_kv=True, add_zero_attn=True)(x[0], x[1], x[1])[0],
    'mha no bias': lambda x: mha(x, bias=False)(x[0], x[1], x[1], average_attn_weights=False)[0],
    'mha widths': lambda x: mha(x, kdim=6, vdim=12, batch_first=True)(
        x[0], x[1], x[1].repeat(1, 1, 2)
    )[0],
    'mha unbatched': lambda x: mha(x)(x[0, 0], x[0, 1], x[0, 1])[0],
    'mha masked': lambda x: mha(x, batch_first=True)(
        x[0], x[1], x[1], attn_mask=weight(x, 6, 6) > 1, key_padding_mask=weight(x, 4, 6) > 1.5
    )[0],
    'mha causal': lambda x: mha(x, batch_first=True)(
        x[0],
        x[1],
        x[1],
        attn_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
        is_causal=True,
        need_weights=False,
    )[0],
    'plain values': lambda x: mha(x)(x[0], x[1], weight(x, 4, 6, 6))[0],
    'transformer layer': TransformerLayer,
    'transformer': Transformer,
}
CASES = {**ACTIVATIONS, **OTHERS}


def network(name, dtype=torch.float64):
    case = CASES[name]
    operation = case() if isinstance(case, type) else case
    return OneOperation(operation).to(dtype).eval()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('name', CASES)
def test_conservation(name, dtype):
    run = decompose(network(name, dtype), *inputs(dtype), mode='check')
    assert run.residual <= TOLERANCE[dtype]
    for found in run.outputs.values():
        assert found.conservation_error() <= TOLERANCE[dtype]
        assert found.residual <= TOLERANCE[dtype]


@pytest.mark.parametrize('name', CASES)
def test_production_gives_the_same_components(name):
    checked = decompose(network(name), *inputs(), mode='check').outputs
    for key, found in decompose(network(name), *inputs()).outputs.items():
        scale = checked[key].parts.abs().max().clamp_min(1)
        assert (found.parts - checked[key].parts).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize('name', CASES)
def test_frozen_replay_is_affine_and_separates_exactly(name):
    """At the recorded input nothing changes; elsewhere only the replaced modality's part does."""
    model, (a, b) = network(name), inputs()
    base = decompose(model, a, b, mode='check', record=True)
    same = decompose(model, a, b, mode='check', frozen=base.record)
    other = decompose(model, a, inputs(seed=5)[1], mode='check', frozen=base.record)
    double = decompose(model, a, 2 * b, mode='check', frozen=base.record)
    for key, found in base.outputs.items():
        scale = found.parts.abs().max().clamp_min(1)
        assert torch.equal(same.outputs[key].parts, found.parts)
        assert torch.equal(other.outputs[key]['camera'], found['camera'])
        assert torch.equal(other.outputs[key]['bias'], found['bias'])
        assert (double.outputs[key]['radar'] - 2 * found['radar']).abs().max() <= 1e-12 * scale
        assert other.outputs[key].residual <= 1e-12
        assert other.outputs[key].conservation_error() <= 1e-12


# ---------------------------------------------------------------- slopes

SLOPES = {
    F.gelu: lambda t: t / 2 * (1 + mp.erf(t / mp.sqrt(2))),
    F.silu: lambda t: t / (1 + mp.exp(-t)),
    F.mish: lambda t: t * mp.tanh(mp.log(1 + mp.exp(t))),
    torch.sigmoid: lambda t: 1 / (1 + mp.exp(-t)),
    torch.tanh: lambda t: mp.tanh(t),
    F.softplus: lambda t: mp.log(1 + mp.exp(t)),
    F.logsigmoid: lambda t: -mp.log(1 + mp.exp(-t)),
    F.elu: lambda t: t if t > 0 else mp.exp(t) - 1,
    F.hardsigmoid: lambda t: min(max(t + 3, 0), 6) / mp.mpf(6),
    F.hardswish: lambda t: t * min(max(t + 3, 0), 6) / 6,
    F.relu: lambda t: max(t, mp.mpf(0)),
    F.relu6: lambda t: min(max(t, mp.mpf(0)), mp.mpf(6)),
    torch.exp: mp.exp,
    torch.expm1: lambda t: mp.exp(t) - 1,
    torch.log1p: lambda t: mp.log(1 + t),
    torch.sin: mp.sin,
    torch.cos: mp.cos,
    torch.atan: mp.atan,
    torch.erf: mp.erf,
    F.softsign: lambda t: t / (1 + abs(t)),
}
POINTS = [s * m for m in (1e-30, 1e-10, 1e-7, 1e-4, 0.01, 0.5, 0.99, 3.0, 15.0) for s in (1, -1)]


@pytest.mark.parametrize('function', SLOPES, ids=lambda f: f.__name__)
def test_slope_is_accurate_near_zero_in_single_precision(function):
    """Against (f(A) - f(0)) / A in 60 digits, at the very float32 number A."""
    points = torch.tensor([p for p in POINTS if function is not torch.log1p or p > -1])
    slope = slope_of(function)(points)
    for point, found in zip(points.tolist(), slope.tolist(), strict=True):
        t = mp.mpf(point)
        expected = (SLOPES[function](t) - SLOPES[function](mp.mpf(0))) / t
        assert math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-7), point


def slope_of(function):
    """The registered slope, out of the rule's closure."""
    rule = FUNCTION_RULES[function]
    cells = dict(zip(rule.__code__.co_freevars, rule.__closure__, strict=True))
    return cells['slope'].cell_contents


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (torch.sigmoid, 0.25),
        (torch.tanh, 1.0),
        (F.gelu, 0.5),
        (F.silu, 0.5),
        (F.relu, 0.0),
        (F.softplus, 0.5),
        (F.elu, 1.0),
        (F.hardsigmoid, 1 / 6),
        (F.relu6, 0.0),
        (torch.exp, 1.0),
    ],
)
def test_slope_at_zero_is_the_derivative(function, expected):
    assert slope_of(function)(torch.zeros(1)).item() == pytest.approx(expected)


# ---------------------------------------------------------------- normalisation, by hand


@pytest.mark.parametrize('family', ['instance_norm', 'layer_norm', 'group_norm'])
@pytest.mark.parametrize('rule', ['ratio', 'identity', 'uniform'])
def test_normalisation_rules(family, rule):
    """Prop. 3 and its two variants, from their formulae."""
    a, b = inputs()
    gamma, beta = weight(a, 4), weight(a, 2, 4)[0]
    shape, dims = {
        'instance_norm': ((2, 4, 36), (2,)),
        'group_norm': ((2, 2, 72), (2,)),
        'layer_norm': ((2, 4, 36), (2,)),
    }[family]
    operation = {
        'instance_norm': lambda x: F.instance_norm(x, weight=gamma, bias=beta),
        'group_norm': lambda x: F.group_norm(x, 2, gamma, beta),
        'layer_norm': lambda x: F.layer_norm(x, (6, 6)),
    }[family]
    run = decompose(OneOperation(operation), a, b, mode='check', rules={family: rule})
    parts = [p.reshape(shape) for p in (a, b, torch.full_like(a, OFFSET))]
    whole = sum(parts)
    mean = whole.mean(dims, keepdim=True)
    sigma = (((whole - mean) ** 2).mean(dims, keepdim=True) + 1e-5).sqrt()
    for i, (name, part) in enumerate(zip(('camera', 'radar', 'bias'), parts, strict=True)):
        lost = {
            'ratio': part.mean(dims, keepdim=True),
            'identity': mean * (i == 2),
            'uniform': mean / 3,
        }[rule]
        expected = ((part - lost) / sigma).reshape(a.shape)
        if family != 'layer_norm':
            expected = expected * gamma[:, None, None] + beta[:, None, None] * (i == 2)
        assert (run.outputs[''][name] - expected).abs().max() <= 1e-13


@pytest.mark.parametrize('rule', ['identity', 'uniform'])
def test_batch_norm_rules(rule):
    """Prop. 2: beta - mean * scale belongs to the bias, or to all in equal parts."""
    a, b = inputs()
    mean, var, gamma, beta = weight(a, 4), weight(a, 2, 4)[0] ** 2 + 0.5, *weight(a, 3, 2, 4)[0]
    run = decompose(
        OneOperation(lambda x: F.batch_norm(x, mean, var, gamma, beta, False, 0.1, 1e-3)),
        *(a, b),
        mode='check',
        rules=dict(batch_norm=rule),
    )
    scale = (gamma / (var + 1e-3).sqrt())[:, None, None]
    shift = (beta - mean * scale[:, 0, 0])[:, None, None]
    shares = {'identity': (0, 0, 1), 'uniform': (1 / 3,) * 3}[rule]
    for name, part, share in zip(
        ('camera', 'radar', 'bias'), (a, b, torch.full_like(a, OFFSET)), shares, strict=True
    ):
        assert (run.outputs[''][name] - part * scale - share * shift).abs().max() <= 1e-13


def test_no_rule_for_normalisation_is_the_jacobian():
    a, b = inputs()
    operation = F.instance_norm
    run = decompose(OneOperation(operation), a, b, mode='check', rules=dict(instance_norm='none'))
    for name, part in (('camera', a), ('radar', b)):
        expected = torch.autograd.functional.jvp(operation, a + b + OFFSET, part)[1]
        assert (run.outputs[''][name] - expected).abs().max() <= 1e-12


def test_no_rule_for_activations_is_the_derivative():
    a, b = inputs()
    run = decompose(OneOperation(F.gelu), a, b, mode='check', rules=dict(activation='none'))
    for name, part in (('camera', a), ('radar', b)):
        expected = torch.autograd.functional.jvp(F.gelu, a + b + OFFSET, part)[1]
        assert (run.outputs[''][name] - expected).abs().max() <= 1e-13


@pytest.mark.parametrize(
    ('operation', 'rules'),
    [(F.gelu, dict(activation='separate')), (F.instance_norm, dict(instance_norm='separate'))],
)
def test_separate_is_the_function_of_each_component(operation, rules):
    a, b = inputs()
    found = decompose(OneOperation(operation), a, b, mode='check', rules=rules).outputs['']
    assert torch.allclose(found['camera'], operation(a), atol=1e-13)
    assert torch.allclose(found['radar'], operation(b), atol=1e-13)


# ---------------------------------------------------------------- products and attention, by hand


@pytest.mark.parametrize('rule', ['first', 'second', 'symmetric', 'gate'])
def test_product_rules(rule):
    a, b = inputs()

    def operation(x):
        return (x * 2) * (x[:, :1] + 1)

    found = decompose(OneOperation(operation), a, b, mode='check', rules=dict(product=rule))
    whole = a + b + OFFSET
    freeze_first = whole * 2 * a[:, :1]
    freeze_second = (a * 2) * (whole[:, :1] + 1)
    expected = {
        'first': freeze_first,
        'second': freeze_second,
        'symmetric': (freeze_first + freeze_second) / 2,
        'gate': freeze_second,  # The second factor has fewer elements.
    }[rule]
    assert (found.outputs['']['camera'] - expected).abs().max() <= 1e-13


def test_a_sigmoid_is_the_frozen_factor_wherever_it_stands():
    a, b = inputs()
    gate = torch.sigmoid(a + b + OFFSET)
    for operation in (lambda x: torch.sigmoid(x) * x, lambda x: x * x.sigmoid().view(2, 4, 6, 6)):
        found = decompose(OneOperation(operation), a, b, mode='check').outputs['']
        assert (found['camera'] - gate * a).abs().max() <= 1e-13


def test_attention_weights_are_frozen():
    a, b = inputs()
    found = decompose(OneOperation(attention_by_hand), a, b, mode='check').outputs['']
    whole = heads(a + b + OFFSET)
    weights = torch.softmax(whole @ (0.5 * whole).mT / 2.4, -1)
    assert (found['radar'] - weights @ (2 * heads(b))).abs().max() <= 1e-13


def test_multi_head_attention_by_hand():
    a, b = inputs()
    layer = mha(a, batch_first=True)
    nn.init.normal_(layer.in_proj_bias)
    nn.init.normal_(layer.out_proj.bias)
    found = decompose(
        OneOperation(lambda x: layer(x[0], x[1], x[1], need_weights=False)[0]),
        *(a, b), mode='check',
    ).outputs['']  # fmt: skip
    whole = a + b + OFFSET
    weights = layer(whole[0], whole[1], whole[1], average_attn_weights=False)[1]

    def way_of_values(value, shift):
        projected = value[1] @ layer.in_proj_weight[12:].T + shift * layer.in_proj_bias[12:]
        split = projected.unflatten(-1, (2, 3)).transpose(1, 2)
        return (weights @ split).transpose(1, 2).flatten(2) @ layer.out_proj.weight.T

    assert (found['camera'] - way_of_values(a, 0)).abs().max() <= 1e-13
    bias = way_of_values(torch.full_like(a, OFFSET), 1) + layer.out_proj.bias
    assert (found['bias'] - bias).abs().max() <= 1e-13


def test_maxima_keep_the_selected_element():
    a, b = inputs()
    found = decompose(OneOperation(lambda x: F.max_pool2d(x, 2)), a, b, mode='check').outputs['']
    index = F.max_pool2d(a + b + OFFSET, 2, return_indices=True)[1].flatten(2)
    assert torch.equal(found['radar'], b.flatten(2).gather(2, index).view(2, 4, 3, 3))


def test_softmax_is_a_constant():
    found = decompose(OneOperation(lambda x: x.softmax(1)), *inputs(), mode='check').outputs['']
    assert found['camera'].abs().max() == 0
    assert torch.equal(found['bias'], found.value)


def test_rules_of_one_module_only():
    a, b = inputs()
    model = OneOperation(nn.Sequential(nn.InstanceNorm2d(4), nn.GELU(), nn.InstanceNorm2d(4)))
    rules = Rules(per_module={'operation.2': dict(instance_norm='identity')})
    settings = dict(mode='check', outputs=['operation'], capture=['operation.1'])
    ours = decompose(model, a, b, rules=rules, **settings)
    ratio = decompose(model, a, b, **settings)
    assert torch.equal(ours.captured['operation.1'].parts, ratio.captured['operation.1'].parts)
    assert (ours.outputs['operation'].parts - ratio.outputs['operation'].parts).abs().max() > 0.1
