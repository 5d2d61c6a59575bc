"""The head start over a part of the rows, and the accelerated updates that it is made by."""

import pytest
import torch

from explain3d.core import nmf_accelerated, nmf_coarse
from explain3d.core.nmf import factorize, factorize_batch
from explain3d.core.nmf_accelerated import accelerated
from explain3d.core.nmf_coarse import LEAST_ROWS, Level, coarse
from explain3d.core.nmf_init import nndsvd, random_factors
from explain3d.core.nmf_updates import objective, steps

C, R = 12, 5


def features_of(rows, seed=0):
    """Features as a ReLU leaves them: eight directions, noise, and many zeros; float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (draw(rows, 8) @ draw(8, C) + 0.3 * draw(rows, C)).clamp(min=0)


def value(F, H, W):
    return objective(F, H, W, 'frobenius')


def reached(F, start, iterations):
    """The objective after some iterations, which is half of the value that they report."""
    found = accelerated(F, *start, iterations)
    objective_there = value(F, found.H, found.W)
    torch.testing.assert_close(found.value / 2, objective_there)
    return objective_there


@pytest.fixture(scope='module')
def F():
    return features_of(LEAST_ROWS + 400)


def test_without_going_ahead_it_is_hals(F, monkeypatch):
    monkeypatch.setattr(nmf_accelerated, '_FIRST', 0.0)
    part = F[None, :200]
    H, W = random_factors(part, [200], R, 0)
    found = accelerated(part, H, W, 7)
    both, _ = steps('frobenius', 'hals')
    for _ in range(7):
        both(part, H, W)
    torch.testing.assert_close(found.H, H, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.W, W, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('first', [0.5, 1.0, 5.0], ids=['usual', 'far', 'much_too_far'])
def test_it_never_ends_above_its_start_or_an_earlier_iteration(F, monkeypatch, first):
    monkeypatch.setattr(nmf_accelerated, '_FIRST', first)
    part = F[None, :300]
    start = nndsvd(part, R)
    before = [factor.clone() for factor in start]
    values = [reached(part, start, n).item() for n in range(12)]
    assert values[0] == value(part, *start).item()
    assert all(b <= a * (1 + 1e-12) for a, b in zip(values, values[1:], strict=False))
    assert values[-1] < 0.9 * values[0]
    assert all(torch.equal(a, b) for a, b in zip(before, start, strict=True))


def test_it_gets_further_than_hals_in_as_many_iterations(F):
    part = F[None, :1000]
    H, W = nndsvd(part, R)
    fast = reached(part, (H, W), 40)
    both, _ = steps('frobenius', 'hals')
    for _ in range(40):
        both(part, H, W)
    assert fast < value(part, H, W)


def test_the_value_that_decides_is_the_objective(F):
    part = F[None, :100]
    H, W = random_factors(part, [100], R, 1)
    norm = nmf_accelerated._inner(part, part)
    found = nmf_accelerated._value(norm, W @ part.mT, W @ W.mT, H)
    torch.testing.assert_close(found / 2, value(part, H, W))


@pytest.mark.parametrize('seed', [0, 2])
def test_it_is_ahead_of_nndsvd(seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((3 * LEAST_ROWS // 2, 24), (24, 32))
    )
    F = (left @ right - 2).clamp(min=0)
    plain = factorize(F, 12, max_iter=10, tol=0)
    ahead = factorize(F, 12, init='coarse', max_iter=10, tol=0)
    assert ahead.objective < 0.99 * plain.objective
    assert (ahead.H >= 0).all()
    assert (ahead.W >= 0).all()


def test_few_rows_start_as_nndsvd_does(F):
    few = F[: LEAST_ROWS - 1]
    a, b = (factorize(few, R, init=init) for init in ('coarse', 'nndsvd'))
    assert torch.equal(a.H, b.H)
    assert torch.equal(a.W, b.W)


def test_each_frame_of_a_batch_starts_as_it_would_alone(F):
    frames = [F, features_of(60, 1), features_of(LEAST_ROWS, 2)]
    options = dict(init='coarse', max_iter=10, tol=0)
    for frame, result in zip(frames, factorize_batch(frames, R, **options), strict=True):
        alone = factorize(frame, R, **options)
        torch.testing.assert_close(result.H, alone.H, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(result.W, alone.W, rtol=1e-5, atol=1e-7)


def test_the_same_call_gives_the_same_bits(F):
    a, b = (coarse(F[None].float(), [len(F)], R) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('rank', [R, C - 1])
@pytest.mark.parametrize('kind', ['few_rows', 'one_long_row', 'one_direction'])
def test_rows_that_tell_nothing_are_no_end(F, kind, rank):
    F = F.clone()
    if kind == 'few_rows':
        F[30:] = 0
    elif kind == 'one_long_row':
        F[100] *= 1e4
    else:
        F[:LEAST_ROWS] = F[0]
    found = factorize(F, rank, init='coarse', max_iter=40, tol=0)
    plain = factorize(F, rank, init='nndsvd', max_iter=40, tol=0)
    assert torch.isfinite(found.H).all()
    assert torch.isfinite(found.W).all()
    assert found.objective < 1.1 * plain.objective


@pytest.mark.parametrize('rows', [50, LEAST_ROWS])
def test_as_many_concepts_as_channels_are_exact(F, rows):
    found = factorize(F[:rows], C, init='coarse', max_iter=20, tol=0)
    assert found.residual < 1e-12


def test_the_best_candidate_goes_on(F, monkeypatch):
    monkeypatch.setattr(nmf_coarse, 'LEVELS', (Level(1, 20, 8),))
    _, chosen = coarse(F[None], [len(F)], R)
    values = []
    for candidates in range(1, 9):
        monkeypatch.setattr(nmf_coarse, 'LEVELS', (Level(1, 20, candidates),))
        H, W = coarse(F[None], [len(F)], R)
        values.append(value(F[None], H, W).item())
    assert min(values) < 0.999 * values[0]  # Or there was nothing to choose.
    assert values[-1] <= min(values) * 1.001
    assert torch.equal(chosen, W)


def test_concepts_with_channels_of_their_own_are_recovered_exactly():
    generator = torch.Generator().manual_seed(0)
    H = torch.rand(LEAST_ROWS, 4, generator=generator, dtype=torch.float64)
    H = H * (torch.rand(H.shape, generator=generator) > 0.4)
    W = torch.eye(4, dtype=torch.float64).repeat_interleave(3, dim=1)
    assert factorize(H @ W, 4, init='coarse', max_iter=60, tol=0).residual < 1e-12
