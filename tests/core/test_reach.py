"""How far networks look, against the gradients of real convolutions."""

import pytest
import torch
from torch import nn

from explain3d.core.reach import ReachProbe, grid_of


def conv(stride=1, padding=1):
    layer = nn.Conv2d(1, 1, 3, stride, padding, bias=False)
    nn.init.ones_(layer.weight)
    return layer


NETWORKS = {
    'own padding': lambda: [conv(2), conv()],
    'padding apart, first': lambda: [nn.ZeroPad2d(1), conv(1, 0), conv(2)],
    'padding apart, later': lambda: [conv(), nn.ZeroPad2d(1), conv(2, 0), conv()],
    'uneven padding': lambda: [conv(), nn.ZeroPad2d((2, 0, 1, 1)), conv(1, 0)],
}


@pytest.mark.parametrize('name', NETWORKS)
def test_reach_and_place_are_those_of_the_gradient(name):
    network = nn.Sequential(*NETWORKS[name]())
    x = torch.ones(1, 1, 30, 32, requires_grad=True)
    probe = ReachProbe()
    with probe.watching(network):
        out = network(x)
    assert probe.bounded
    grid = grid_of(probe, out).last(2)
    row, column = (n // 2 for n in out.shape[2:])
    (gradient,) = torch.autograd.grad(out[0, 0, row, column], x)
    reached = gradient[0, 0].nonzero()
    for axis, cell in enumerate((row, column)):
        first, last = reached[:, axis].min().item(), reached[:, axis].max().item()
        middle = grid.center[axis] + cell * grid.stride[axis]
        assert middle - probe.of(out)[axis] <= first + 0.5
        assert middle + probe.of(out)[axis] >= last + 0.5
        if name != 'uneven padding':
            assert (first + last) / 2 + 0.5 == middle
            assert (last - first) / 2 == probe.of(out)[axis]


def test_what_looks_anywhere_is_not_bounded():
    for module in (nn.GroupNorm(1, 1), nn.AdaptiveAvgPool2d(4)):
        probe = ReachProbe()
        network = nn.Sequential(conv(), module)
        with probe.watching(network):
            network(torch.ones(1, 1, 8, 8))
        assert not probe.bounded
