"""Separation: formulas at their extremes, the pairing, sums over any number of processes."""

import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.metrics.moments import Moments, SampleAccumulator
from explain3d.metrics.separation import Figure, Pairing, figures, mean_squared_error, pearson


def test_pearson_and_mse_equal_the_formulas():
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 3, (5, 1, 7, 9)), rng.normal(-1, 2, (5, 1, 7, 9))
    found = pearson(torch.tensor(a), torch.tensor(b))
    error = mean_squared_error(torch.tensor(a), torch.tensor(b))
    for k in range(5):
        assert found[k].item() == pytest.approx(np.corrcoef(a[k].ravel(), b[k].ravel())[0, 1])
        assert error[k].item() == pytest.approx(sum((a[k] - b[k]).ravel() ** 2) / 63)
    assert found.dtype == error.dtype == torch.float64


@pytest.mark.parametrize(('scale', 'shift', 'expected'), [(2.0, 5.0, 1.0), (-0.1, 0.0, -1.0)])
def test_pearson_of_affine_copies(scale, shift, expected):
    a = torch.randn(2, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        pearson(a, scale * a.double() + shift), torch.full((2,), expected).double()
    )


def test_pearson_survives_scales_whose_squares_do_not_fit():
    a = torch.randn(1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    b = torch.randn(1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for scale in (1e-120, 1e120):
        torch.testing.assert_close(pearson(a * scale, b * scale), pearson(a, b))


def test_pearson_of_a_constant_map_is_not_defined():
    a = torch.randn(3, 50)
    a[1] = 0.1  # Its mean in floating point need not be 0.1.
    found = pearson(a, torch.randn(3, 50))
    assert found.isnan().tolist() == [False, True, False]
    assert mean_squared_error(a, a).tolist() == [0, 0, 0]


@pytest.mark.parametrize('function', [pearson, mean_squared_error])
def test_bad_maps_are_refused(function):
    good = torch.ones(2, 3)
    with pytest.raises(InputError, match=r'same shape.*\(2, 3\) and \(2, 4\)'):
        function(good, torch.ones(2, 4))
    with pytest.raises(InputError, match='finite'):
        function(good, good * torch.tensor([1, float('nan'), 1]))


def test_pairing_of_the_paper():
    pairing = Pairing.of(6019)
    assert (pairing.stride, pairing.shifts) == (500, 12)
    assert pairing.partners(0) == [500 * m for m in range(1, 13)]
    assert pairing.partners(6000)[:2] == [481, 981]


@pytest.mark.parametrize('count', [*range(2, 60), 81, 300, 6019, 20000])
def test_pairs_are_different_samples(count):
    pairing = Pairing.of(count)
    for k in {0, 1, count - 1, count // 2}:
        partners = pairing.partners(k)
        assert len({k, *partners}) == pairing.shifts + 1
        assert all(0 <= j < count for j in partners)
    # As many as fit: one more would be the sample itself, or go round the set.
    assert pairing.shifts == 12 or pairing.stride * (pairing.shifts + 1) >= count


@pytest.mark.parametrize(('count', 'stride'), [(1, None), (5, 5), (5, 0)])
def test_sets_without_pairs_are_refused(count, stride):
    with pytest.raises(InputError, match='no sample has a partner'):
        Pairing.of(count, stride)


def test_directions_are_those_of_the_appendix():
    better = {f.name: f.higher_is_better for f in figures(['radar', 'camera'])}
    assert better == {
        'radar_p/radar pcc': False,
        'radar_p/camera pcc': True,
        'camera_p/radar pcc': True,
        'camera_p/camera pcc': False,
        'radar_p/radar mse': True,
        'radar_p/camera mse': False,
        'camera_p/radar mse': False,
        'camera_p/camera mse': True,
    }
    assert Figure('radar', 'bias', 'pcc').higher_is_better is None


def test_moments_leave_out_and_count_what_is_not_defined():
    values = np.array([[1.0, np.nan, 4.0], [3.0, np.nan, np.nan]])
    found = Moments.of(values)
    assert found.count.tolist() == [2, 0, 1]
    assert found.excluded.tolist() == [0, 2, 1]
    np.testing.assert_equal(found.means, [2.0, np.nan, 4.0])
    np.testing.assert_equal(found.deviations, [1.0, np.nan, 0.0])
    with pytest.raises(InputError, match='infinite'):
        Moments.of(np.array([[np.inf]]))


def test_the_deviation_of_figures_near_one_is_exact():
    values = 1 - 1e-9 * np.arange(12.0)[:, None]
    found = Moments.of(values[:5]) + Moments.of(values[5:])
    assert found.deviations[0] == pytest.approx(np.std(1e-9 * np.arange(12.0)), rel=1e-6)


@pytest.mark.parametrize('processes', [2, 3, 7])
def test_any_number_of_processes_gives_the_same_bits(processes):
    rng = np.random.default_rng(3)
    data = {
        k: np.where(rng.random((4, 3)) < 0.1, np.nan, rng.normal(size=(4, 3))) for k in range(10)
    }
    alone = SampleAccumulator('abc')
    for k, values in data.items():
        alone.add(k, values)
    parts = [SampleAccumulator('abc') for _ in range(processes)]
    for place in range(-(-10 // processes) * processes):  # Samplers repeat samples to fill up.
        parts[place % processes].add(place % 10, data[place % 10])
    total = SampleAccumulator('abc')
    for part in reversed(parts):
        total.merge(part)
    assert len(total) == 10
    for name in ('count', 'excluded', 'means', 'deviations'):
        np.testing.assert_array_equal(getattr(total.result(), name), getattr(alone.result(), name))
    stacked = np.concatenate(list(data.values()))
    np.testing.assert_allclose(alone.result().means, np.nanmean(stacked, 0))
    np.testing.assert_allclose(alone.result().deviations, np.nanstd(stacked, 0))


def test_accumulators_of_other_columns_do_not_merge():
    first = SampleAccumulator(['a'])
    with pytest.raises(InputError, match='same configuration'):
        first.merge(SampleAccumulator(['b']))
    with pytest.raises(InputError, match=r'\(pairs, 1\)'):
        first.add(0, np.zeros((2, 3)))
