"""Bias splitting against the conditions of Eq. 13 and C.2, element by element."""

import itertools

import pytest
import torch

from explain3d.lmd.splitting import bias_shares


def eq_13(c, r, b):
    """The sum rule as the paper writes it, its "and" between the patterns read as "or"."""
    camera = (c < 0 and r > 0 and b < 0) or (c > 0 and r < 0 and b > 0)
    radar = (c < 0 and r > 0 and b > 0) or (c > 0 and r < 0 and b < 0)
    return (c + b * camera, r + b * radar, 0.0 if camera or radar else b)


def c_2(c, r, b):
    """The ratio rule as the paper writes it."""
    same = (c > 0 and r > 0 and b > 0) or (c < 0 and r < 0 and b < 0)
    opposed = (c > 0 and r > 0 and b < 0) or (c < 0 and r < 0 and b > 0)
    alpha = abs(r) / (abs(c) + abs(r)) if same or opposed else 0
    if same:
        return (c + (1 - alpha) * b, r + alpha * b, 0.0)
    if opposed:
        return (c + alpha * b, r + (1 - alpha) * b, 0.0)
    return (c, r, b)


VALUES = (-3.0, -0.7, 0.0, 0.2, 1.5)
TRIPLES = list(itertools.product(VALUES, repeat=3))


def split(rule, modalities, bias):
    h = torch.tensor(modalities, dtype=torch.float64).T
    b = torch.tensor(bias, dtype=torch.float64)
    shares, left = bias_shares(rule, h, b)
    return torch.cat([h + shares * b, (left * b)[None]]).T


@pytest.mark.parametrize(('rule', 'paper'), [('sum', eq_13), ('ratio', c_2)])
def test_two_modalities_as_in_the_paper(rule, paper):
    found = split(rule, [t[:2] for t in TRIPLES], [t[2] for t in TRIPLES])
    expected = torch.tensor([paper(*t) for t in TRIPLES], dtype=torch.float64)
    assert (found - expected).abs().max() <= 1e-15


def test_uniform_gives_equal_parts_to_all():
    found = split('uniform', [(1.0, 2.0), (0.0, -1.0)], [3.0, -6.0])
    assert found.tolist() == [[2, 3, 1], [-2, -3, -2]]


@pytest.mark.parametrize(
    ('parts', 'bias', 'expected'),
    [
        ((1.0, -1.0, -2.0), 3.0, (4, -1, -2, 0)),  # the only one of its sign
        ((1.0, -1.0, 0.0), 3.0, (4, -1, 0, 0)),  # a zero neither agrees nor opposes
        ((1.0, 0.0, 0.0), 3.0, (1, 0, 0, 3)),  # nobody opposes
        ((1.0, 2.0, -2.0), 3.0, (1, 2, -2, 3)),  # two of its sign
        ((-1.0, -1.0, -2.0), 3.0, (-1, -1, -2, 3)),  # none of its sign
    ],
)
def test_sum_of_three_modalities(parts, bias, expected):
    assert split('sum', [parts], [bias])[0].tolist() == list(expected)


def test_ratio_of_three_modalities():
    assert split('ratio', [(1.0, 1.0, 2.0)], [4.0])[0].tolist() == [2, 2, 4, 0]
    assert split('ratio', [(1.0, 1.0, 2.0)], [-4.0])[0].tolist() == [-0.5, -0.5, 1, 0]
    assert split('ratio', [(1.0, 1.0, -2.0)], [4.0])[0].tolist() == [1, 1, -2, 4]
    assert split('ratio', [(1.0, 1.0, 0.0)], [4.0])[0].tolist() == [1, 1, 0, 4]


@pytest.mark.parametrize('rule', ['identity', 'uniform', 'sum', 'ratio'])
@pytest.mark.parametrize('size', [2, 3, 6])
def test_nothing_is_lost(rule, size):
    h = torch.randn(size, 1000, generator=torch.Generator().manual_seed(size)).double()
    b = h[0].flip(0) + 0.1
    shares, left = bias_shares(rule, h, b)
    shares = torch.as_tensor(shares, dtype=torch.float64)
    total = shares.expand(size, 1000).sum(0) + left
    assert (total - 1).abs().max() <= 1e-15


def test_ratio_of_tiny_components_is_finite():
    shares, _ = bias_shares('ratio', torch.full((2, 1), 1e-38), torch.full((1,), 1e-38))
    assert torch.isfinite(shares).all()
