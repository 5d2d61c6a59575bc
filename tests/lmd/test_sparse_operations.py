"""Sparse convolutions on a CPU: conservation, the plain run, and dense convolutions as oracle."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip('spconv')

import spconv.pytorch as spconv

from explain3d.adapters.common.spconv_compat import ensure_cpu_backward
from explain3d.core.errors import InputError, NotApplicableError
from explain3d.lmd import Seed
from explain3d.lmd.linearized import LinearNetwork
from tests.helpers.pretend_device.random_rows import random_rows
from tests.lmd.networks import TOLERANCE, decompose

ensure_cpu_backward()
SIZE, CHANNELS = (6, 7, 8), 3
SEEDS = (Seed('', path='a', modality='front'), Seed('', path='b', modality='top'))
BEHIND = (Seed('layers.3', at='output', path='features', split=dict(low=2, high=3)),)
#: What is added to the features of the two sensors: the bias component.
OFFSET = 0.3
LAYERS = {
    'submanifold': (dict(kernel_size=3, padding=1, indice_key='s'), spconv.SubMConv3d),
    'submanifold, no key': (dict(kernel_size=3, padding=1), spconv.SubMConv3d),
    'strided': (dict(kernel_size=3, stride=2, padding=1, indice_key='d'), spconv.SparseConv3d),
    'strided, no key': (dict(kernel_size=(3, 1, 1), stride=(2, 1, 1)), spconv.SparseConv3d),
    'pointwise': (dict(kernel_size=1), spconv.SubMConv3d),
}


def voxels(count=60, seed=0, batch=2):
    """Voxels without repetition (count, 4): batch, z, y, x."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(batch * SIZE[0] * SIZE[1] * SIZE[2], generator=generator)[:count]
    return torch.stack(torch.unravel_index(places, (batch, *SIZE)), 1).int()


def features(count=60, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, CHANNELS, dtype=dtype, generator=generator) for _ in range(2))


class Sparse(nn.Module):
    """``layers(a + b + OFFSET)`` at fixed voxels; gives the dense tensor."""

    def __init__(self, layers, coordinates=None):
        super().__init__()
        self.layers = layers
        self.coordinates = voxels() if coordinates is None else coordinates

    def forward(self, a, b):
        x = spconv.SparseConvTensor(a + b + OFFSET, self.coordinates, SIZE, 2)
        return self.layers(x).dense()


def randomised(module, dtype=torch.float64, seed=2):
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.3)
    return module.to(dtype).eval()


class Block(spconv.SparseModule):
    """A residual block, its activations on the features."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = spconv.SubMConv3d(width, width, 3, padding=1, bias=False, indice_key='block')
        self.norm1 = nn.BatchNorm1d(width)
        self.conv2 = spconv.SubMConv3d(width, width, 3, padding=1, indice_key='block')

    def forward(self, x):
        out = self.conv1(x)
        out = out.replace_feature(F.relu(self.norm1(out.features)))
        out = self.conv2(out)
        return out.replace_feature(F.relu(out.features + x.features))


def encoder(dtype=torch.float64):
    """Down, a block, and up again by the inverse of the way down."""
    layers = spconv.SparseSequential(
        spconv.SubMConv3d(CHANNELS, 4, 3, padding=1, indice_key='first'),
        nn.BatchNorm1d(4),
        nn.ReLU(inplace=True),
        spconv.SparseConv3d(4, 5, 3, stride=2, padding=1, indice_key='down'),
        nn.BatchNorm1d(5),
        nn.ReLU(inplace=True),
        Block(5),
        spconv.SparseInverseConv3d(5, 4, 3, indice_key='down'),
    )
    return randomised(Sparse(layers), dtype)


class FromVoxels(Sparse):
    """A map behind sparse layers."""

    def __init__(self):
        super().__init__(encoder().layers)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, a, b):
        return self.head(super().forward(a, b).mean(2))


def dense_oracle(layer, component, coordinates):
    """The layer's convolution of one component, as a dense one; (B, K, Z, Y, X), no bias."""
    canvas = component.new_zeros(2, *SIZE, CHANNELS)
    canvas[tuple(coordinates.long().T)] = component
    weight = layer.weight.reshape(layer.out_channels, *layer.kernel_size, CHANNELS)
    return F.conv3d(
        canvas.movedim(-1, 1), weight.movedim(-1, 1), None, layer.stride, layer.padding
    )  # fmt: skip


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('name', LAYERS)
def test_each_component_is_convolved_as_a_dense_convolution_does(name, bias):
    torch.manual_seed(0)
    arguments, kind = LAYERS[name]
    layer = kind(CHANNELS, 4, bias=bias, **arguments)
    model = Sparse(layer).double().eval()
    run = decompose(model, *(args := features()), seeds=SEEDS, mode='check')
    assert run.residual < TOLERANCE[torch.float64]
    found = run.outputs['']
    active = found.value.new_zeros(2, *found.value.shape[-3:])
    with torch.no_grad():
        sparse = layer(spconv.SparseConvTensor(args[0], model.coordinates, SIZE, 2))
    active[tuple(sparse.indices.long().T)] = 1
    constant = torch.full_like(args[0], OFFSET)
    for part, component in zip(found.parts, (*args, constant), strict=True):
        if name == 'pointwise':  # spconv's 1 x 1 reads its weight in another order than others.
            matrix = layer.weight.view(CHANNELS, 4)
            expected = component.new_zeros(2, *SIZE, 4)
            expected[tuple(model.coordinates.long().T)] = component @ matrix
            expected = expected.movedim(-1, 1)
        else:
            expected = dense_oracle(layer, component, model.coordinates) * active[:, None]
        if bias and component is constant:
            expected = expected + layer.bias[:, None, None, None] * active[:, None]
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_an_encoder_conserves_and_its_values_are_its_own(dtype):
    model = encoder(dtype)
    run = decompose(model, *features(dtype=dtype), seeds=SEEDS, mode='check')
    assert run.residual < TOLERANCE[dtype]
    found = run.outputs['']
    assert all(part.any() for part in found.parts)
    production = decompose(model, *features(dtype=dtype), seeds=SEEDS).outputs['']
    torch.testing.assert_close(production.parts, found.parts, rtol=1e-4, atol=1e-5)
    # Not all of it is the bias: Eq. 25 with everything frozen at this input.
    recorded = decompose(model, *features(dtype=dtype), seeds=SEEDS, record=True)
    a, b = features(dtype=dtype)
    zero = torch.zeros_like(a)
    alone = decompose(model, a, zero, seeds=SEEDS, frozen=recorded.record).outputs['']
    none = decompose(model, zero, zero, seeds=SEEDS, frozen=recorded.record).outputs['']
    tolerance = 1e-4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(
        found.parts[0], alone.value - none.value, rtol=0, atol=tolerance
    )  # fmt: skip
    torch.testing.assert_close(found.parts[2], none.value, rtol=0, atol=tolerance)


def test_parts_are_gradient_times_input_by_spconvs_own_backward():
    """Behind the seeds all is linear but for ReLU: a part is gradient x input."""
    model = encoder().requires_grad_(False)
    inputs = features()
    run = decompose(model, *inputs, seeds=SEEDS)
    leaves = [each.clone().requires_grad_() for each in inputs]
    weight = torch.randn(run.outputs[''].value.shape, dtype=torch.float64)
    gradients = torch.autograd.grad((model(*leaves) * weight).sum(), leaves)
    for part, gradient, leaf in zip(run.outputs[''].parts, gradients, inputs, strict=False):
        expected = float((gradient * leaf).sum())
        assert float((part * weight).sum()) == pytest.approx(expected, rel=1e-9)


def test_a_sensor_whose_voxels_are_zero_has_no_part():
    model = encoder()
    a, b = features()
    found = decompose(model, a, torch.zeros_like(b), seeds=SEEDS, mode='check').outputs['']
    assert found['front'].any()
    assert not found['top'].any()


def test_it_can_be_seeded_and_captured_at_sparse_tensors():
    model = encoder()
    seeds = [Seed('layers.3', path='0.features', split=dict(low=2, high=2))]
    run = decompose(
        model, *features(), seeds=seeds, outputs=['layers.6'], capture=['layers.3'], mode='check'
    )
    assert set(run.captured) == {'layers.3.features'}
    assert run.outputs['layers.6.features'].conservation_error() < 1e-12


class FromMap(nn.Module):
    """Sparse layers over the features that a map has at some places; gives a map again."""

    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(2, CHANNELS, 1)
        self.layers, self.coordinates = encoder().layers, voxels()

    def forward(self, x):
        batch, _, row, column = self.coordinates.long().T
        rows = self.start(x).movedim(1, -1)[batch, row, column]
        return self.layers(spconv.SparseConvTensor(rows, self.coordinates, SIZE, 2)).dense().mean(2)


def test_the_linear_network_has_the_gradient_of_the_network_itself():
    model = FromMap().double().eval().requires_grad_(False)
    x = torch.randn(2, 2, *SIZE[1:], dtype=torch.float64)
    with LinearNetwork(model, ['start'], '') as run:
        model(x)
    found = torch.autograd.grad(run.component.sum(), run.kept['start'])[0][0]
    kept = []
    handle = model.start.register_forward_hook(lambda *a: kept.append(a[2].requires_grad_()))
    (expected,) = torch.autograd.grad(model(x).sum(), kept)
    handle.remove()
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_what_is_not_the_same_voxels_is_not_replayed():
    model = encoder()
    recorded = decompose(model, *features(), seeds=SEEDS, record=True)
    model.coordinates = voxels(seed=5)
    with pytest.raises(InputError, match='record does not fit'):
        decompose(model, *features(), seeds=SEEDS, frozen=recorded.record)


@pytest.mark.parametrize('seeds', [SEEDS, BEHIND], ids=['at the inputs', 'behind a strided one'])
def test_a_replay_does_not_depend_on_the_order_of_the_voxels(seeds):
    model = encoder()
    base = decompose(model, *features(), seeds=seeds, record=True)
    record = base.record.to(features()[0].device)
    assert record.nbytes == base.record.nbytes
    with random_rows():
        again = decompose(model, *features(), seeds=seeds, frozen=record, mode='check')
    found, expected = again.outputs[''].parts, base.outputs[''].parts
    assert all(part.any() for part in expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_voxels_that_come_in_another_order_are_not_replayed():
    """What was recorded before the first convolution has one entry for each of them."""
    model = encoder()
    recorded = decompose(model, *features(), seeds=SEEDS, record=True)
    model.coordinates = voxels().flip(0)
    args = [each.flip(0) for each in features()]
    with pytest.raises(
        InputError, match=r"input voxels of module 'layers.0' come in another order"
    ):
        decompose(model, *args, seeds=SEEDS, frozen=recorded.record)


def test_voxels_before_the_seeds_may_be_others():
    """The frozen network starts behind them: its record fits whatever comes out there."""
    model = FromVoxels().double().eval()
    seeds = [Seed('head', at='input', split=dict(low=2, high=2))]
    recorded = decompose(model, *features(), seeds=seeds, record=True)
    model.coordinates = voxels(seed=5)
    run = decompose(model, *features(), seeds=seeds, frozen=recorded.record, mode='check')
    assert run.residual < TOLERANCE[torch.float64]
    assert not torch.equal(run.outputs[''].parts, recorded.outputs[''].parts)


def test_a_sum_inside_the_kernel_is_refused():
    layer = spconv.SubMConv3d(CHANNELS, CHANNELS, 3, padding=1, indice_key='s').double().eval()

    class Added(nn.Module):
        def forward(self, a, b):
            x = spconv.SparseConvTensor(a + b, voxels(), SIZE, 2)
            return layer(x, x).dense()

    model = Added()
    model.layer = layer
    with pytest.raises(NotApplicableError, match='adds another tensor'):
        decompose(model, *features(), seeds=SEEDS)


def test_the_copy_that_mmcv_carries():
    """Its kernels need CUDA but for a kernel of one voxel; its tensors cannot replace features."""
    ops = pytest.importorskip('mmcv.ops')

    class Old(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = ops.SubMConv3d(CHANNELS, 4, 1)

        def forward(self, a, b):
            return self.layer(ops.SparseConvTensor(a + b + OFFSET, voxels(), SIZE, 2)).dense()

    args = features()
    # Its parameters come from torch.Tensor(size): of the CPU, whatever the default device is.
    model = Old().to(args[0]).eval().requires_grad_(False)
    seeds = [Seed('layer', path='0.features', split=dict(front=1, top=2))]
    run = decompose(model, *args, seeds=seeds, mode='check')
    assert run.residual < TOLERANCE[torch.float64]
    matrix, rows = model.layer.weight.view(CHANNELS, 4), sum(args) + OFFSET
    expected = torch.zeros(2, *SIZE, 4, dtype=torch.float64)
    expected[tuple(voxels().long().T)] = rows[:, :1] @ matrix[:1]
    torch.testing.assert_close(
        run.outputs['']['front'], expected.movedim(-1, 1), rtol=0, atol=1e-12
    )
