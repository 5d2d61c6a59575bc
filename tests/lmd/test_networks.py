"""Whole networks: conservation, Eq. 25 by an independent run, frozen replay, autocast."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explain3d.core.errors import InputError
from explain3d.lmd import Decomposition, FrozenRecord, Rules, Seed

from .networks import (
    TOLERANCE,
    OneOperation,
    assert_identical,
    decompose,
    fusion,
    fusion_seeds,
    inputs,
    sensors,
)

THREE = ('camera', 'radar', 'lidar')
SPLITS = ('identity', 'uniform', 'sum', 'ratio')
NORMS = ('ratio', 'identity', 'uniform')
ABLATIONS = ('none', 'separate')


def run_fusion(model, args, names=('camera', 'radar'), **settings):
    settings = {'outputs': ['head'], 'capture': ['layer1'], **settings}
    return decompose(model, *args, seeds=fusion_seeds(names[: len(args)]), **settings)


# ---------------------------------------------------------------- conservation


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('sizes', [(5, 3), (4, 3, 2)])
def test_conservation_with_every_pair_of_rules(sizes, dtype):
    model, args = fusion(sizes, dtype), sensors(sizes, dtype)
    for split, norm, batch in itertools.product(SPLITS, NORMS, ('identity', 'uniform')):
        rules = dict(bias_split=split, instance_norm=norm, batch_norm=batch)
        run = run_fusion(model, args, THREE, mode='check', rules=rules)
        assert run.residual <= TOLERANCE[dtype]
        assert run.outputs['head'].residual <= run.residual
        for layer in run.layers:
            assert layer.residual <= TOLERANCE[dtype]
            assert sum(layer.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    'rules', [dict(activation=r) for r in ABLATIONS] + [dict(instance_norm=r) for r in ABLATIONS]
)
def test_ablations_conserve(rules):
    assert run_fusion(fusion(), sensors(), mode='check', rules=rules).residual <= 1e-12


def test_production_is_check_without_the_bias():
    for split in SPLITS:
        both = [
            run_fusion(fusion(), sensors(), mode=mode, rules=dict(bias_split=split))
            for mode in ('production', 'check')
        ]
        for kind in ('outputs', 'captured'):
            found, expected = (next(iter(getattr(run, kind).values())) for run in both)
            assert (found.parts - expected.parts).abs().max() <= 1e-12
        assert both[0].residual is None
        assert both[0].outputs['head'].residual is None


def test_parts_of_sensors_depend_on_the_sensors():
    """Conservation alone would be met by a bias that is everything."""
    found = run_fusion(fusion(), sensors(), mode='check').outputs['head']
    silent = run_fusion(fusion(), [s * 0 for s in sensors()], mode='check').outputs['head']
    assert found['camera'].abs().mean() > 0.1
    assert found['radar'].abs().mean() > 0.1
    assert silent['camera'].abs().max() == 0
    assert silent['radar'].abs().max() == 0


def test_one_linear_layer_by_hand():
    model = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    model[0].weight.data = torch.tensor([[2.0, -3.0]])
    model[0].bias.data = torch.tensor([5.0])
    seeds = [Seed('0', split=dict(camera=1, radar=1))]
    x = torch.tensor([[1.0, 2.0], [4.0, 1.0]])
    run = decompose(model, x, seeds=seeds, mode='check')
    # 2 - 6 + 5 = 1 passes the ReLU, 8 - 3 + 5 = 10 too.
    assert run.outputs[''].parts.squeeze(-1).tolist() == [[2, 8], [-6, -3], [5, 5]]
    x = torch.tensor([[-1.0, 2.0]])
    assert not decompose(model, x, seeds=seeds).outputs[''].parts.any()


# ---------------------------------------------------------------- Eq. 25


class ByHand:
    """The fusion network again, in plain algebra, with slopes and deviations kept from one input.

    Nothing of the engine is used. The first run keeps what the operating point determines, later
    ones are an affine map.
    """

    def __init__(self, model, args, instance_norm):
        self.m, self.mode, self.kept, self.recording = model, instance_norm, [], True
        self.value = self(*args)
        self.recording = False

    def __call__(self, *args):
        self.position = 0
        m = self.m
        x = F.conv2d(torch.cat(args, 1), m.fuse.weight, m.fuse.bias, padding=1)
        x = self.activation(self.norm(x), lambda t: t * 0.5 * (1 + torch.erf(t / 2**0.5)))
        skip = self.block(m.layer1, x)
        x = self.block(m.layer2, skip)
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False) + skip
        x = self.norm(F.conv2d(x, m.head[0].weight, padding=1))
        x = self.activation(x, lambda t: t * (t > 0))
        return F.conv2d(x, m.head[3].weight, m.head[3].bias)

    def block(self, b, x):
        def batch_norm(t, bn):
            shape = (-1, 1, 1)
            scale = (bn.weight / (bn.running_var + bn.eps) ** 0.5).view(shape)
            return (t - bn.running_mean.view(shape)) * scale + bn.bias.view(shape)

        relu, short = (lambda t: t * (t > 0)), x
        if isinstance(b.shortcut, nn.Conv2d):
            short = F.conv2d(x, b.shortcut.weight, b.shortcut.bias, stride=2)
        y = self.activation(batch_norm(self.conv3(x, b.conv1), b.bn1), relu)
        return self.activation(batch_norm(self.conv3(y, b.conv2), b.bn2) + short, relu)

    @staticmethod
    def conv3(x, conv):
        return F.conv2d(x, conv.weight, stride=conv.stride, padding=1)

    def keep(self, value):
        if self.recording:
            self.kept.append(value)
        self.position += 1
        return self.kept[self.position - 1]

    def activation(self, x, f):
        return x * self.keep(torch.where(x == 0, 0 * x, f(x) / x))

    def norm(self, x):
        mean = x.mean((2, 3), keepdim=True)
        sigma = self.keep((((x - mean) ** 2).mean((2, 3), keepdim=True) + 1e-5) ** 0.5)
        frozen_mean = self.keep(mean)
        return (x - (mean if self.mode == 'ratio' else frozen_mean)) / sigma


@pytest.mark.parametrize('norm', ['ratio', 'identity'])
@pytest.mark.parametrize('sizes', [(5, 3), (4, 3, 2)])
@torch.no_grad()
def test_equation_25(sizes, norm):
    """h_m = F^(x_m, zeros) - F^(zeros) and h_b = F^(zeros), for the rules for which it holds."""
    model, args = fusion(sizes), sensors(sizes)
    linear = ByHand(model, args, norm)
    assert torch.allclose(linear.value, model(*args), atol=1e-12)
    run = run_fusion(model, args, THREE, mode='check', rules=dict(instance_norm=norm))
    found = run.outputs['head']
    zeros = [torch.zeros_like(a) for a in args]
    bias = linear(*zeros)
    assert (found['bias'] - bias).abs().max() <= 1e-12 * found.parts.abs().max()
    for i, name in enumerate(THREE[: len(sizes)]):
        alone = linear(*zeros[:i], args[i], *zeros[i + 1 :]) - bias
        assert (found[name] - alone).abs().max() <= 1e-12 * found.parts.abs().max()
        assert alone.abs().mean() > 0.05


@pytest.mark.parametrize('norm', ['ratio', 'identity'])
@torch.no_grad()
def test_frozen_mode_is_the_network_of_equation_25(norm):
    model, args, other = fusion(), sensors(), sensors(seed=9)
    linear = ByHand(model, args, norm)
    rules = dict(instance_norm=norm)
    record = run_fusion(model, args, record=True, rules=rules).record
    for mode in ('production', 'check'):
        run = run_fusion(model, other, frozen=record, mode=mode)
        scale = run.outputs['head'].parts.abs().max()
        assert (run.outputs['head'].value - linear(*other)).abs().max() <= 1e-12 * scale
        assert_identical(model(*other), run.plain_outputs['head'])


# ---------------------------------------------------------------- frozen mode


@pytest.mark.parametrize(
    'rules', [dict(bias_split=s, instance_norm=n) for s in SPLITS for n in (*NORMS, 'none')]
)
def test_frozen_components_ignore_the_other_sensors_exactly(rules):
    """Splitting masks and ratios are replayed as well, or 'sum' and 'ratio' would leak."""
    model, args = fusion(), sensors()
    base = run_fusion(model, args, record=True, mode='check', rules=rules)
    swapped = run_fusion(model, [args[0], sensors(seed=7)[1]], frozen=base.record)
    clean = run_fusion(model, args, frozen=base.record)
    assert torch.equal(clean.outputs['head']['camera'], swapped.outputs['head']['camera'])
    assert torch.equal(clean.outputs['head']['bias'], swapped.outputs['head']['bias'])
    assert not torch.equal(clean.outputs['head']['radar'], swapped.outputs['head']['radar'])
    expected, found = base.outputs['head'], clean.outputs['head']
    assert (found.parts - expected.parts).abs().max() <= 1e-12 * expected.parts.abs().max()


def test_relinearised_components_do_not_ignore_them():
    model, args = fusion(), sensors()
    one, two = (run_fusion(model, a) for a in (args, [args[0], sensors(seed=7)[1]]))
    assert not torch.allclose(one.outputs['head']['camera'], two.outputs['head']['camera'])


def test_a_record_made_in_production_can_be_checked():
    model, args = fusion(), sensors()
    record = run_fusion(model, args, record=True).record
    assert isinstance(record, FrozenRecord)
    assert record.nbytes > 0
    assert [op.module for op in record.operations][0] == ''
    run = run_fusion(model, sensors(seed=4), frozen=record.to('cpu'), mode='check')
    assert run.residual <= 1e-12
    assert run.outputs['head'].residual <= 1e-12


def test_a_record_refuses_other_shapes_networks_seeds_and_rules():
    model, args = fusion(), sensors()
    record = run_fusion(model, args, record=True).record
    refuses = pytest.raises(InputError, match='does not fit: operation 0 was torch.cat')
    with refuses:
        run_fusion(model, sensors(size=16), frozen=record)
    with pytest.raises(InputError, match='does not fit'):
        run_fusion(model, sensors(batch=1), frozen=record)
    with pytest.raises(InputError, match='follows other rules'):
        run_fusion(model, args, frozen=record, rules=dict(bias_split='sum'))
    with pytest.raises(InputError, match='is of .*camera.*radar.*bias.*, received seeds of'):
        run_fusion(model, args, ('camera', 'lidar'), frozen=record)
    shorter = FrozenRecord(record.names, record.rules, record.operations[:-1])
    with pytest.raises(InputError, match='ends after'):
        run_fusion(model, args, frozen=shorter)
    longer = FrozenRecord(record.names, record.rules, record.operations + record.operations[-1:])
    with pytest.raises(InputError, match='did not run'):
        run_fusion(model, args, frozen=longer)


def test_the_record_does_not_share_memory_that_the_network_writes_to():
    def operation(x):
        mask = (x > 0).to(x)
        y = x * mask
        mask.zero_()
        return y

    a, b = inputs()
    base = decompose(OneOperation(operation), a, b, record=True, mode='check')
    again = decompose(OneOperation(operation), a, b, frozen=base.record)
    assert torch.equal(again.outputs[''].parts, base.outputs[''].parts)


# ---------------------------------------------------------------- precision, batches, edges


def test_autocast():
    """Values are those of the plain run under autocast; the parts add up to its precision."""
    model, args = fusion(dtype=torch.float32), sensors(dtype=torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        run = run_fusion(model, args, mode='check', record=True)
        production = run_fusion(model, args)
    assert run.outputs['head'].value.dtype == torch.bfloat16
    assert 1e-6 < run.residual < 2e-2
    # The same slopes in float32: without them, elements that cross a ReLU's threshold differ.
    exact = run_fusion(model, args, mode='check', frozen=run.record).outputs['head'].parts
    for found in (run.outputs['head'], production.outputs['head']):
        assert (found.parts.float() - exact).abs().max() < 2e-2 * exact.abs().max()


def test_every_sample_of_a_batch_is_decomposed_by_itself():
    model, args = fusion(), sensors(batch=3)
    whole = run_fusion(model, args).outputs['head']
    for i in range(3):
        one = run_fusion(model, [a[i : i + 1] for a in args]).outputs['head']
        assert torch.allclose(whole.parts[:, i : i + 1], one.parts, atol=1e-12)


def test_empty_batch():
    model = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.MaxPool2d(2)).double()
    seeds = [Seed('0', split=dict(camera=2, radar=2))]
    run = decompose(model, torch.zeros(0, 4, 4, 4).double(), seeds=seeds, mode='check')
    assert run.outputs[''].parts.shape == (3, 0, 3, 2, 2)
    assert run.residual == 0


def test_not_a_number_goes_through_and_shows():
    args = sensors()
    args[0][0, 0, 0, 0] = torch.nan
    run = run_fusion(fusion(), args, mode='check')
    assert run.raw_outputs['head'].value.isnan().any()
    assert run.residual != run.residual
    for _ in range(2):
        with pytest.raises(InputError, match='has values that are NaN.*begins at .*cat'):
            _ = run.outputs
    quiet = run_fusion(fusion(), args)
    with pytest.raises(InputError, match="mode='check'"):
        _ = quiet.captured


@pytest.mark.parametrize('memory_format', [torch.channels_last, torch.contiguous_format])
def test_memory_formats(memory_format):
    model = fusion().to(memory_format=memory_format)
    args = [a.contiguous(memory_format=memory_format) for a in sensors()]
    assert run_fusion(model, args, mode='check').residual <= 1e-12


def test_inference_mode_and_grad_mode():
    model, args = fusion(), sensors()
    expected = run_fusion(model, args).outputs['head'].parts
    for context in (torch.inference_mode, torch.enable_grad):
        with context(), Decomposition(model, fusion_seeds(), ['head']) as run:
            out = model(*args)
        assert torch.equal(run.outputs['head'].parts, expected)
        assert not run.outputs['head'].parts.requires_grad
        assert out.requires_grad == (context is torch.enable_grad)


def test_gradients_are_those_of_the_plain_network():
    """For Radar-GradCAM: values keep their graph, components build none."""
    model = fusion()
    model(*(args := [a.requires_grad_() for a in sensors()])).square().sum().backward()
    expected = [a.grad.clone() for a in args]
    for a in args:
        a.grad = None
    with Decomposition(model, fusion_seeds(), ['head']) as run:
        out = model(*args)
    out.square().sum().backward()
    assert torch.equal(run.outputs['head'].value, out)
    for a, grad in zip(args, expected, strict=True):
        assert torch.equal(a.grad, grad)


def test_six_cameras_as_six_modalities():
    """Cameras are averaged where they see: a masked mean over a dimension that the seed splits."""

    class Lift(nn.Module):
        def __init__(self):
            super().__init__()
            self.average, self.head = nn.Identity(), nn.Conv2d(3, 1, 1)

        def forward(self, features, valid):
            features = self.average(features) * valid
            return self.head(features.sum(1) / (1e-6 + valid.sum(1)))

    names = ('F', 'FR', 'FL', 'B', 'BL', 'BR')
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 3, 4, 4, generator=generator).double()
    valid = (torch.rand(2, 6, 1, 4, 4, generator=generator) > 0.5).double()
    seeds = [Seed('average', at='output', dim=1, split=dict.fromkeys(names, 1))]
    model = Lift().double()
    found = decompose(model, features, valid, seeds=seeds, mode='check').outputs['']
    assert found.names == (*names, 'bias')
    for i, name in enumerate(names):
        mean = features[:, i] * valid[:, i] / (1e-6 + valid.sum(1))
        expected = F.conv2d(mean, model.head.weight)
        assert (found[name] - expected).abs().max() <= 1e-14
    assert Rules.from_config(None) == Rules()
