"""Strides and centres against the receptive fields of real convolutions."""

import pytest
import torch
from torch import nn

from explain3d.core.receptive_field import Grid, GridBook

CHAINS = {
    'paper': [(3, 2, 1, 1), (3, 2, 1, 1)],
    'no padding': [(3, 2, 0, 1)],
    'mixed': [(3, 2, 1, 1), (3, 1, 1, 1), (3, 2, 0, 1), (1, 2, 0, 1)],
    'even kernel': [(2, 2, 0, 1), (4, 2, 1, 1)],
    'dilated': [(3, 1, 2, 2), (3, 2, 1, 1)],
}


@pytest.mark.parametrize('chain', CHAINS.values(), ids=CHAINS)
def test_centre_is_the_middle_of_what_reaches_a_cell(chain):
    x = torch.ones(1, 1, 80, requires_grad=True)
    value, grid = x, Grid.of_input((80,))
    for kernel, stride, padding, dilation in chain:
        conv = nn.Conv1d(1, 1, kernel, stride, padding, dilation, bias=False)
        nn.init.ones_(conv.weight)
        value = conv(value)
        grid = grid.convolved(value.shape[2:], [kernel], [stride], [padding], [dilation])
    for cell in (value.shape[2] // 2, value.shape[2] // 2 + 1):
        (gradient,) = torch.autograd.grad(value[0, 0, cell], x, retain_graph=True)
        reached = gradient[0, 0].nonzero().flatten()
        middle = (reached.min() + reached.max()).item() / 2 + 0.5
        assert grid.center[0] + cell * grid.stride[0] == middle
    assert grid.shape == tuple(value.shape[2:])


@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [(2, 2, 0), (4, 2, 1), (4, 4, 0)])
def test_transposed_convolution_is_centred_on_where_a_cell_spreads(kernel, stride, padding):
    conv = nn.ConvTranspose1d(1, 1, kernel, stride, padding, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 9)
    x[0, 0, 4] = 1
    out = conv(x)
    coarse = Grid((9,), (8.0,), (0.5,))
    fine = coarse.deconvolved(out.shape[2:], [kernel], [stride], [padding], [1])
    reached = out[0, 0].nonzero().flatten()
    middle = (reached.min() + reached.max()).item() / 2
    assert fine.center[0] + middle * fine.stride[0] == coarse.center[0] + 4 * coarse.stride[0]
    assert fine.stride == (8.0 / stride,)


def test_a_known_shape_keeps_its_first_grid():
    book = GridBook((8, 16, 32))
    down = book.get((8, 16, 32)).convolved((4, 8, 16), [3] * 3, [2] * 3, [1] * 3, [1] * 3)
    book.add(down)
    book.add(Grid((4, 8, 16), (9.0,) * 3, (9.0,) * 3))
    assert book.get([4, 8, 16]) is down
    assert book.get((8, 16)) == Grid((8, 16), (2.0, 2.0), (0.5, 0.5))
    assert book.get((1, 2, 3)) is None


def test_padding_apart_from_the_convolution_is_the_convolutions_own():
    """OpenPCDet's 2D backbones pad by a module and convolve without padding."""
    grid = Grid.of_input((9, 8))
    apart = grid.padded((11, 10), (1, 1)).convolved((5, 4), [3, 3], [2, 2], [0, 0], [1, 1])
    assert apart == grid.convolved((5, 4), [3, 3], [2, 2], [1, 1], [1, 1])
    assert grid.padded((12, 8), (3, 0)).center == (-2.5, 0.5)
