"""Sparse convolutions on a CPU with several threads equal dense ones, values and gradients."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip('spconv')

import spconv.pytorch as spconv
from spconv.pytorch import ops

from explain3d.adapters.common.spconv_compat import ensure_cpu_backward

ensure_cpu_backward()

SHAPE = (13, 14, 15)
CASES = {
    'submanifold': (dict(kernel_size=3, padding=1), True),
    'submanifold, even fewer': (dict(kernel_size=(3, 1, 1), padding=(1, 0, 0)), True),
    'stride 2': (dict(kernel_size=3, stride=2, padding=1), False),
    'only in z': (dict(kernel_size=(3, 1, 1), stride=(2, 1, 1)), False),
    'biased': (dict(kernel_size=3, stride=2, padding=1, bias=True), False),
}


def compare(options, subm, occupied=0.4, channels=5):
    """Compares one sparse convolution with a dense one in float64."""
    torch.manual_seed(0)
    options = {'bias': False, **options}
    kind = spconv.SubMConv3d if subm else spconv.SparseConv3d
    module = kind(channels, 6, **options)
    cells = (torch.rand(SHAPE) < occupied).nonzero()
    coords = torch.cat([torch.zeros(len(cells), 1), cells], 1).int()
    features = torch.randn(len(cells), channels, requires_grad=True)
    out = module(spconv.SparseConvTensor(features, coords, list(SHAPE), 1))
    weights = torch.randn_like(out.features)
    got = torch.autograd.grad(out.features, (features, module.weight), weights)

    exact = features.detach().double().requires_grad_()
    kernel = module.weight.detach().double().permute(0, 4, 1, 2, 3).requires_grad_()
    dense = exact.new_zeros(*SHAPE, channels).index_put(tuple(cells.T), exact)
    bias = module.bias.detach().double() if options['bias'] else None
    full = torch.nn.functional.conv3d(
        dense.permute(3, 0, 1, 2)[None], kernel, bias, options.get('stride', 1),
        options.get('padding', 0),
    )  # fmt: skip
    values = full[0][(slice(None), *out.indices[:, 1:].long().T)].T
    wanted = torch.autograd.grad(values, (exact, kernel), weights.double())
    # Sums of at most 27 * 5, or of 1000 products, in float32.
    torch.testing.assert_close(out.features.double(), values, rtol=0, atol=1e-5)
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(got[1].permute(0, 4, 1, 2, 3).double(), wanted[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize(('options', 'subm'), CASES.values(), ids=CASES)
def test_equal_to_a_dense_convolution(options, subm):
    compare(options, subm)


def test_no_voxels_in_reach_of_each_other():
    compare(dict(kernel_size=3, padding=1), True, occupied=0.002)


def test_one_thread_of_the_stock_kernels_gives_the_same():
    """The replacement is spconv's own arithmetic: with one thread the two agree."""
    code = (
        'import torch, spconv.pytorch as s; from spconv.pytorch import ops\n'
        'import explain3d.adapters.common.spconv_compat as c; c.ensure_cpu_backward()\n'
        'torch.manual_seed(0); cells = (torch.rand(9, 9, 9) < 0.5).nonzero()\n'
        'x = s.SparseConvTensor(torch.randn(len(cells), 8), '
        'torch.cat([torch.zeros(len(cells), 1), cells], 1).int(), [9, 9, 9], 1)\n'
        'm = s.SparseConv3d(8, 8, 3, 2, 1, bias=False)\n'
        'ours = m(x).features; ops.indice_conv = ops.indice_conv.explain3d_stock\n'
        'torch.testing.assert_close(ours, m(x).features, rtol=0, atol=1e-5)\n'
    )
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, env=environment)


def test_four_threads_give_the_same_each_time():
    code = (
        'import torch, spconv.pytorch as s\n'
        'import explain3d.adapters.common.spconv_compat as c; c.ensure_cpu_backward()\n'
        'torch.manual_seed(0); cells = torch.ones(30, 24, 26).nonzero()\n'
        'm = s.SubMConv3d(16, 16, 3, padding=1, bias=False)\n'
        'f = torch.randn(len(cells), 16, requires_grad=True)\n'
        'i = torch.cat([torch.zeros(len(cells), 1), cells], 1).int()\n'
        'def once():\n'
        '    o = m(s.SparseConvTensor(f, i, [30, 24, 26], 1)).features\n'
        '    return o, *torch.autograd.grad(o.square().sum(), (f, m.weight))\n'
        'first = once()\n'
        'for _ in range(4):\n'
        '    assert all(torch.equal(a, b) for a, b in zip(first, once()))\n'
    )
    environment = {**os.environ, 'OMP_NUM_THREADS': '4'}
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True, env=environment)


def test_the_replacement_is_in_force_once():
    stock = ops.indice_conv.explain3d_stock
    ensure_cpu_backward()
    assert ops.indice_conv.explain3d_stock is stock
    assert not hasattr(stock, 'explain3d_stock')
