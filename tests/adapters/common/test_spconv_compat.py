"""Gradients through sparse convolutions against dense ones in float64."""

import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from explain3d.adapters.common.spconv_compat import (
    differentiable_sparse_convolutions,
    ensure_cpu_backward,
)

spconv = pytest.importorskip('spconv.pytorch')
ensure_cpu_backward()


def sparse_input(shape, channels, count, seed=0, device='cpu'):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(shape[0] * shape[1] * shape[2], generator=generator)[:count]
    z, y, x = cells // (shape[1] * shape[2]), cells // shape[2] % shape[1], cells % shape[2]
    indices = torch.stack([torch.zeros_like(z), z, y, x], 1).int()
    features = torch.randn(count, channels, generator=generator)
    return features.to(device), indices.to(device)


def dense(features, indices, shape):
    """Scatters (M, C) rows into (1, C, D, H, W)."""
    grid = features.new_zeros(*shape, features.shape[1])
    grid[tuple(indices[:, 1:].long().T)] = features
    return grid.permute(3, 0, 1, 2)[None]


def dense_weight(conv):
    """(O, kD, kH, kW, I) of spconv to (O, I, kD, kH, kW) of torch."""
    return conv.weight.detach().double().permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize('padding', [1, (0, 1, 1)])
def test_cpu_gradients_equal_those_of_a_dense_convolution_in_float64(padding):
    shape = (7, 8, 9)
    features, indices = sparse_input(shape, 3, 40)
    torch.manual_seed(1)
    submanifold = spconv.SubMConv3d(3, 5, 3, padding=1, bias=False, indice_key='a').double()
    strided = spconv.SparseConv3d(5, 4, 3, stride=2, padding=padding, bias=False).double()
    leaf = features.double().requires_grad_()
    out = strided(submanifold(spconv.SparseConvTensor(leaf, indices, list(shape), 1)))
    cotangent = torch.randn(out.features.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((out.features * cotangent).sum(), leaf)

    leaf64 = features.double().requires_grad_()
    occupied = dense(torch.ones(len(indices), 1, dtype=torch.float64), indices, shape)
    middle = F.conv3d(dense(leaf64, indices, shape), dense_weight(submanifold), padding=1)
    expected_out = F.conv3d(middle * occupied, dense_weight(strided), stride=2, padding=padding)
    rows = expected_out[0].permute(1, 2, 3, 0)[tuple(out.indices[:, 1:].long().T)]
    (expected,) = torch.autograd.grad((rows * cotangent).sum(), leaf64)

    torch.testing.assert_close(out.features, rows, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason='the replacement is for machines without CUDA'
)
def test_patching_twice_is_harmless():
    from spconv.pytorch import ops

    assert ensure_cpu_backward()
    first = ops.get_current_stream
    assert ensure_cpu_backward()
    assert ops.get_current_stream is first
    assert first() == 0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = spconv.SubMConv3d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout()


@pytest.mark.parametrize('fails', [False, True])
def test_only_sparse_convolutions_are_switched_and_put_back(fails):
    net = Net().eval()
    try:
        with differentiable_sparse_convolutions(net):
            assert net.conv.training
            assert not any(m.training for m in (net, net.norm, net.dropout))
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert not any(m.training for m in net.modules())


def test_convolutions_in_training_mode_stay_there():
    net = Net().train()
    with differentiable_sparse_convolutions(net):
        pass
    assert all(m.training for m in net.modules())


def test_gradients_of_features_alone_where_weights_are_constants(monkeypatch):
    """Also where the parameter requires a gradient again by the time of the backward pass."""
    ops = sys.modules['spconv.pytorch.ops']
    given, real = [], ops.indice_conv_backward

    def watched(*args, **kwargs):
        given.append(real(*args, **kwargs)[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(ops, 'indice_conv_backward', watched)
    shape = (7, 8, 9)
    features, indices = sparse_input(shape, 3, 40)
    conv = spconv.SubMConv3d(3, 5, 3, padding=1, bias=False).train()
    leaf, found = features.clone().requires_grad_(), []
    for context in (differentiable_sparse_convolutions(conv), nullcontext()):
        with context:
            out = conv(spconv.SparseConvTensor(leaf, indices, list(shape), 1)).features
        found.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    assert torch.equal(*found)
    assert given[0] is None
    assert given[1].shape == conv.weight.shape
    assert 'weight' not in vars(conv)
    assert conv.weight.requires_grad


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device and spconv-cu*')
def test_eval_mode_has_gradients_on_a_gpu():
    shape = (7, 8, 9)
    features, indices = sparse_input(shape, 3, 40, device='cuda')
    conv = spconv.SubMConv3d(3, 5, 3, padding=1, bias=False).cuda().eval()
    leaf = features.clone().requires_grad_()
    with differentiable_sparse_convolutions(conv):
        out = conv(spconv.SparseConvTensor(leaf, indices, list(shape), 1)).features
    cotangent = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * cotangent).sum(), leaf)

    leaf64 = features.double().requires_grad_()
    rows = F.conv3d(dense(leaf64, indices, shape), dense_weight(conv), padding=1)
    rows = rows[0].permute(1, 2, 3, 0)[tuple(indices[:, 1:].long().T)]
    (expected,) = torch.autograd.grad((rows * cotangent.double()).sum(), leaf64)
    torch.testing.assert_close(gradient.double(), expected, atol=2e-3, rtol=2e-3)
