"""Convolutions of a part of a map: the full convolution's values there."""

import pytest
import torch
from torch import nn

from explain3d.adapters.common.trimmed import can_be_trimmed, size_of, trimmed

MODULES = {
    'plain': nn.Conv2d(2, 3, 3, padding=1),
    'strided': nn.Conv2d(2, 3, 3, stride=2, padding=1),
    'not padded': nn.Conv2d(2, 3, 3),
    'dilated': nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2),
    'uneven': nn.Conv2d(2, 3, (1, 5), stride=(1, 2), padding=(0, 2), bias=False),
    'upsampling': nn.ConvTranspose2d(2, 3, 2, stride=2),
    'overlapping': nn.ConvTranspose2d(2, 3, 5, stride=2, bias=False),
    'one by one': nn.ConvTranspose2d(2, 3, 1),
}


@pytest.mark.parametrize('name', MODULES)
def test_a_part_is_the_part_of_the_whole(name):
    module = MODULES[name].double()
    value = torch.randn(2, 2, 11, 14, dtype=torch.float64, requires_grad=True)
    full = module(value)
    assert can_be_trimmed(module)
    assert size_of(module, (11, 14)) == tuple(full.shape[2:])
    height, width = full.shape[2:]
    for rows in ((0, height), (0, 1), (height - 1, height), (height // 2, height // 2 + 2)):
        for columns in ((0, width), (1, 4), (width - 3, width)):
            mask = torch.zeros_like(full)
            mask[:, :, slice(*rows), slice(*columns)] = 1
            found = trimmed(module, value, (rows, columns))
            torch.testing.assert_close(found, full * mask, atol=1e-12, rtol=1e-12)
            weights = torch.randn_like(full)
            expected = torch.autograd.grad((full * mask * weights).sum(), value, retain_graph=True)
            gradient = torch.autograd.grad((found * weights).sum(), value)
            torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    'module',
    [
        nn.Conv2d(2, 3, 3, padding='same'),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode='circular'),
        nn.ConvTranspose2d(2, 3, 3, padding=1),
        nn.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1),
        nn.ConvTranspose2d(2, 3, 2, stride=3),
        nn.MaxPool2d(2),
    ],
)
def test_what_is_left_alone(module):
    assert not can_be_trimmed(module)
