"""Transposed convolutions as products for each cell: torch's own values."""

import pytest
import torch
from torch import nn

from explain3d.adapters.common.transposed import spread_transposed

MODULES = {
    'one by one': (nn.ConvTranspose2d(3, 4, 1, bias=False), True),
    'twice': (nn.ConvTranspose2d(3, 4, 2, stride=2, bias=False), True),
    'four times, a bias': (nn.ConvTranspose2d(3, 4, 4, stride=4), True),
    'overlapping': (nn.ConvTranspose2d(3, 4, 3, stride=2), False),
    'gaps': (nn.ConvTranspose2d(3, 4, 1, stride=2), False),
    'uneven': (nn.ConvTranspose2d(3, 4, (2, 1), stride=(2, 1)), False),
    'padded': (nn.ConvTranspose2d(3, 4, 2, stride=2, padding=1), False),
    'grouped': (nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), False),
}


@pytest.mark.parametrize('name', MODULES)
def test_values_are_those_of_torch(name):
    module, replaced = MODULES[name]
    model = nn.Sequential(module, nn.ReLU()).double()
    value = torch.randn(2, module.in_channels, 5, 7, dtype=torch.float64)
    expected = model(value)
    with spread_transposed(model):
        assert ('forward' in vars(module)) == replaced
        found = model(value)
        sized = module(value, output_size=expected.shape[2:])
    assert 'forward' not in vars(module)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(sized.relu(), expected, atol=1e-12, rtol=1e-12)


def test_modules_are_left_as_found_after_an_error():
    module = nn.ConvTranspose2d(3, 4, 2, stride=2)
    with pytest.raises(RuntimeError), spread_transposed(module):
        module(torch.zeros(1, 2, 3, 3))
    assert 'forward' not in vars(module)


@pytest.mark.parametrize('wrapper', [False, True], ids=['torch', 'mmcv'])
def test_on_a_gpu_torch_is_left_alone(wrapper):
    """mmcv's wrapper takes the input alone; as a GPU counts here what is not on a CPU."""
    kind = nn.ConvTranspose2d
    if wrapper:
        kind = pytest.importorskip('mmcv.cnn.bricks.wrappers').ConvTranspose2d
    module = kind(3, 4, 2, stride=2).to('meta')
    with spread_transposed(module):
        assert module(torch.zeros(1, 3, 5, 7, device='meta')).shape == (1, 4, 10, 14)
