"""Networks put together at random from the supported operations."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torch.nn import functional as F

from explain3d.lmd import Rules, Seed

from .networks import decompose

CHANNELS, SIZE = 6, 6
SEEDS = (Seed('', path='a', modality='camera'), Seed('', path='b', modality='radar'),
         Seed('', path='c', modality='lidar'))  # fmt: skip


def squeeze(net, x):
    return torch.sigmoid(net.squeeze(x.mean((2, 3), keepdim=True)))


def written(x, y):
    out = x.clone()
    out[:, 1:3] = y[:, 2:4]
    out[:, 0] += y[:, 5]
    return out


def attended(net, x):
    tokens = x.flatten(2).transpose(1, 2)
    tokens = net.attention(tokens, tokens * 0.5, tokens + 1, need_weights=False)[0]
    return tokens.transpose(1, 2).reshape(x.shape)


def pooled(x):
    return F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode='bilinear')


def averaged(x):
    return F.interpolate(F.avg_pool2d(x, 3, 1, 1), size=x.shape[-2:])


#: Of the network, the tensor and an earlier one; all of (B, CHANNELS, SIZE, SIZE).
OPERATIONS = {
    'convolution': lambda net, x, y: net.convolution(x),
    'concatenation': lambda net, x, y: net.halves(torch.cat([x, y], 1)),
    'transposed convolution': lambda net, x, y: F.avg_pool2d(net.transposed(x), 2),
    'linear': lambda net, x, y: net.linear(x),
    'grouped': lambda net, x, y: net.grouped(x),
    'batch norm': lambda net, x, y: net.batch_norm(x),
    'instance norm': lambda net, x, y: net.instance_norm(x),
    'layer norm': lambda net, x, y: F.layer_norm(x, x.shape[1:]),
    'group norm': lambda net, x, y: net.group_norm(x),
    'relu in place': lambda net, x, y: net.relu(x * 1),
    'relu': lambda net, x, y: F.relu(x),
    'leaky': lambda net, x, y: F.leaky_relu(x, 0.1),
    'gelu': lambda net, x, y: F.gelu(x),
    'silu': lambda net, x, y: F.silu(x),
    'sigmoid': lambda net, x, y: x.sigmoid() - 0.3 * x,
    'tanh': lambda net, x, y: torch.tanh(x),
    'softplus': lambda net, x, y: F.softplus(x),
    'clamp': lambda net, x, y: x.clamp(-0.5, 2.0),
    'skip': lambda net, x, y: x + y,
    'skip in place': lambda net, x, y: x.clone().add_(y, alpha=0.5),
    'difference': lambda net, x, y: 1.5 - x / 3 - y,
    'gate': lambda net, x, y: x * squeeze(net, y),
    'product': lambda net, x, y: x * torch.tanh(y),
    'maximum': lambda net, x, y: torch.maximum(x, y),
    'max pooling': lambda net, x, y: pooled(x),
    'average pooling': lambda net, x, y: averaged(x),
    'where': lambda net, x, y: torch.where(x > 0, x, 0.2 * y),
    'permute': lambda net, x, y: x.permute(0, 1, 3, 2).contiguous(),
    'views': lambda net, x, y: x.contiguous().view(x.shape[0], 2, -1).flip(1).reshape(x.shape),
    'split': lambda net, x, y: torch.cat(x.chunk(3, 1)[::-1], 1),
    'stack': lambda net, x, y: torch.stack([x, y], 1).flatten(1, 2)[:, ::2],
    'shift': lambda net, x, y: F.pad(x.roll(1, 2), (1, 0))[..., :-1],
    'write': lambda net, x, y: written(x, y),
    'gather': lambda net, x, y: x[:, [3, 1, 0, 5, 4, 2]],
    'attention': lambda net, x, y: x + attended(net, x),
    'softmax': lambda net, x, y: x + torch.softmax(y, 1) * y,
    'matrix product': lambda net, x, y: x @ net.linear.weight + 0.1 * (x @ y),
    'sort': lambda net, x, y: x.sort(1)[0],
    'top': lambda net, x, y: x + y.topk(2, 1)[0].sum(1, keepdim=True),
}


class RandomNetwork(nn.Module):
    """Applies named operations in turn, each with an earlier tensor at its side."""

    def __init__(self, steps, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.fuse = nn.Conv2d(6, CHANNELS, 3, padding=1)
        self.convolution = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.halves = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        self.transposed = nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2)
        self.grouped = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2, bias=False)
        self.linear = nn.Linear(SIZE, SIZE)
        self.squeeze = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
        self.batch_norm = nn.BatchNorm2d(CHANNELS)
        self.batch_norm.running_mean.normal_()
        self.instance_norm = nn.InstanceNorm2d(CHANNELS, affine=True)
        self.group_norm = nn.GroupNorm(2, CHANNELS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, a, b, c):
        past = [self.fuse(torch.cat([a, b, c], 1))]
        for name, back in self.steps:
            past.append(OPERATIONS[name](self, past[-1], past[-1 - back % len(past)]))
        return past[-1]


STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 5)), min_size=1, max_size=9
)
RULES = st.builds(
    Rules,
    bias_split=st.sampled_from(('identity', 'uniform', 'sum', 'ratio')),
    batch_norm=st.sampled_from(('identity', 'uniform')),
    instance_norm=st.sampled_from(('ratio', 'identity', 'uniform')),
    layer_norm=st.sampled_from(('ratio', 'identity', 'uniform')),
    group_norm=st.sampled_from(('ratio', 'identity', 'uniform')),
    product=st.sampled_from(('gate', 'first', 'second', 'symmetric')),
)
QUICK = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def sensors(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 2, SIZE, SIZE, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str
)
@settings(QUICK, max_examples=40)
@given(steps=STEPS, rules=RULES, seed=st.integers(0, 99))
def test_conservation_and_equality_of_outputs(dtype, tolerance, steps, rules, seed):
    """``decompose`` compares the outputs with the plain run's, bit for bit."""
    model = RandomNetwork(steps, seed).to(dtype).eval()
    checked = decompose(model, *sensors(dtype), seeds=SEEDS, mode='check', rules=rules)
    assert checked.residual <= tolerance
    assert checked.outputs[''].conservation_error() <= tolerance
    production = decompose(model, *sensors(dtype), seeds=SEEDS, rules=rules)
    assert production.outputs[''].conservation_error() <= tolerance


@settings(QUICK, max_examples=25)
@given(steps=STEPS, rules=RULES, seed=st.integers(0, 99))
def test_frozen_replay_separates_exactly(steps, rules, seed):
    model, (a, b, c) = RandomNetwork(steps, seed).double().eval(), sensors(torch.float64)
    base = decompose(model, a, b, c, seeds=SEEDS, rules=rules, record=True)
    other = sensors(torch.float64, seed=1)[1]
    clean, swapped = (
        decompose(model, a, x, c, seeds=SEEDS, frozen=base.record, mode='check') for x in (b, other)
    )
    scale = base.outputs[''].parts.abs().max()
    assert (clean.outputs[''].parts - base.outputs[''].parts).abs().max() <= 1e-11 * scale
    for name in ('camera', 'lidar', 'bias'):
        assert torch.equal(clean.outputs[''][name], swapped.outputs[''][name])
    assert swapped.residual <= 1e-12
