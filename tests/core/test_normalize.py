import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.core.normalize import full_precision, min_max


def test_each_map_spans_zero_to_one():
    maps = torch.tensor([[2.0, 4.0, 3.0], [-1.0, 0.0, 3.0]])
    expected = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.25, 1.0]])
    assert torch.equal(min_max(maps), expected)


@pytest.mark.parametrize('value', [0.0, 5.0, -1e-30])
def test_a_constant_map_becomes_zeros(value):
    assert torch.equal(min_max(torch.full((2, 7), value)), torch.zeros(2, 7))


def test_a_single_value_is_constant():
    assert torch.equal(min_max(torch.tensor([[3.0]])), torch.zeros(1, 1))


@pytest.mark.parametrize('shape', [(0,), (0, 4), (3, 0)])
def test_empty_maps_stay_empty(shape):
    assert min_max(torch.zeros(shape)).shape == shape


def test_tiny_and_huge_ranges_are_exact_at_the_ends():
    for scale in (1e-37, 1e37):
        out = min_max(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float32) * scale)
        assert out.min() == 0
        assert out.max() == 1


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_values_that_are_not_finite_are_counted(bad):
    maps = torch.zeros(2, 5)
    maps[1, 3] = bad
    with pytest.raises(InputError, match='finite map, received 1 of 10 values'):
        min_max(maps)


def test_the_input_is_left_alone():
    maps = torch.tensor([1.0, 2.0])
    min_max(maps)
    assert torch.equal(maps, torch.tensor([1.0, 2.0]))


def test_only_half_precision_is_widened():
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        values = torch.zeros(1, dtype=dtype)
        assert full_precision(values) is values
