"""The factorisation against loops written from its definition, and against scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.nmf import factorize, factorize_batch, make_nonnegative
from explain3d.core.nmf_init import fill_zeros, nndsvd, random_factors
from explain3d.core.nmf_updates import hals, mu_frobenius, mu_kl, objective, steps

decomposition = pytest.importorskip('sklearn.decomposition')

M, C, R = 40, 12, 5


def random(*shape, seed=0, zeros=0.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(*shape, generator=generator, dtype=torch.float64)
    return values * (torch.rand(*shape, generator=generator) >= zeros)


@pytest.fixture
def features():
    """Features as a ReLU leaves them: many zeros, more directions than concepts."""
    F = random(M, C, zeros=0.4) + random(M, 3, seed=1) @ random(3, C, seed=2)
    F[3] = 0  # A voxel in which nothing fires, and a channel that never does.
    F[:, 7] = 0
    return F


SOLVERS = [('frobenius', 'hals'), ('frobenius', 'mu'), ('kl', 'mu')]


# Updates: loops over single entries, in the order that the definitions give.


def hals_by_loops(X, Y, F):
    """One sweep for F (n, m) ~ X (n, r) Y (r, m): each entry's exact minimum, all else fixed."""
    n, r = X.shape
    for j in range(r):
        norm = sum(Y[j, c] ** 2 for c in range(Y.shape[1]))
        if norm == 0:
            continue
        for i in range(n):
            rest = F[i] - sum(X[i, q] * Y[q] for q in range(r) if q != j)
            X[i, j] = max(0.0, float((rest * Y[j]).sum() / norm))


def kl_by_loops(X, Y, F):
    """One multiplicative update of X: all entries from the same old product."""
    old = X.copy()
    product = old @ Y
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            total = sum(Y[j, c] * F[i, c] / product[i, c] for c in range(F.shape[1]))
            X[i, j] = old[i, j] * total / Y[j].sum()


def test_hals_is_one_entry_after_the_other(features):
    X, Y = random(M, R, seed=3), random(R, C, seed=4, zeros=0.3)
    expected = X.numpy().copy()
    hals_by_loops(expected, Y.numpy(), features.numpy())
    ours = X.T.clone()[None]
    hals(ours, (Y @ features.T)[None], (Y @ Y.T)[None])
    np.testing.assert_allclose(ours[0].T.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_hals_leaves_a_concept_without_a_partner_alone(features):
    X, Y = random(M, R, seed=3), random(R, C, seed=4)
    Y[2] = 0
    expected = X.numpy().copy()
    hals_by_loops(expected, Y.numpy(), features.numpy())
    ours = X.T.clone()[None]
    hals(ours, (Y @ features.T)[None], (Y @ Y.T)[None])
    assert torch.equal(ours[0, 2], X[:, 2])
    np.testing.assert_allclose(ours[0].T.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('small', [1e-45, 1e-40, 1e-30, 1e-20, 1e-10])
@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
def test_concepts_that_fade_leave_finite_factors(features, small, loss, solver):
    F = features.float()
    H, W = random_factors(F[None], [M], R, 0)
    H[0, 1] *= small
    W[0, 3] *= small
    W[0, 4, 2:] *= small
    both, _ = steps(loss, solver)
    before = objective(F[None], H, W, loss).item()
    for _ in range(20):
        both(F[None], H, W)
    assert torch.isfinite(H).all()
    assert torch.isfinite(W).all()
    assert objective(F[None], H, W, loss).item() < before


def test_kl_is_the_multiplicative_rule_for_either_factor(features):
    H, W = random(M, R, seed=3) + 0.1, random(R, C, seed=4) + 0.1
    expected = H.numpy().copy()
    kl_by_loops(expected, W.numpy(), features.numpy())
    ours = H.T.clone()[None]
    mu_kl(ours, W[None], features[None])
    np.testing.assert_allclose(ours[0].T.numpy(), expected, rtol=1e-12)

    expected = W.T.numpy().copy()
    kl_by_loops(expected, H.T.numpy(), features.T.numpy())
    ours = W.clone()[None]
    mu_kl(ours, H.T[None], features.T[None])
    np.testing.assert_allclose(ours[0].T.numpy(), expected, rtol=1e-12)


def test_frobenius_multiplicative_rule(features):
    H, W = random(M, R, seed=3), random(R, C, seed=4)
    ours = H.T.clone()[None]
    mu_frobenius(ours, (W @ features.T)[None], (W @ W.T)[None])
    expected = H * (features @ W.T) / (H @ W @ W.T)
    torch.testing.assert_close(ours[0].T, expected, rtol=1e-12, atol=0)


def test_objectives_are_their_definitions(features):
    H, W = random(M, R, seed=3) + 0.1, random(R, C, seed=4) + 0.1
    P = (H @ W).numpy()
    F = features.numpy()
    half = sum((F[i, c] - P[i, c]) ** 2 for i in range(M) for c in range(C)) / 2
    divergence = sum(
        (F[i, c] * np.log(F[i, c] / P[i, c]) if F[i, c] > 0 else 0) - F[i, c] + P[i, c]
        for i in range(M)
        for c in range(C)
    )
    for loss, expected in (('frobenius', half), ('kl', divergence)):
        value = objective(features[None], H.T[None], W[None], loss).item()
        assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
@pytest.mark.parametrize('init', ['nndsvd', 'random'])
def test_the_objective_never_rises(features, loss, solver, init):
    F = features[None]
    H, W = random_factors(F, [M], R, 0) if init == 'random' else nndsvd(F, R)
    if init == 'nndsvd' and solver == 'mu':
        H, W = fill_zeros(H, W, [M])
    both, weights = steps(loss, solver)
    for step in (both, weights):
        values = [objective(F, H, W, loss).item()]
        for _ in range(150):
            step(F, H, W)
            values.append(objective(F, H, W, loss).item())
        rises = np.diff(values)
        assert rises.max() <= 1e-12 * values[0]
    assert (H >= 0).all()
    assert (W >= 0).all()


def test_kl_never_rises_where_products_vanish():
    """A dictionary without a channel, and weights that start at zero."""
    F, W = random(M, C, zeros=0.3), random(R, C, seed=1, zeros=0.5)
    W[:, 2] = 0
    H = random(R, M, seed=2, zeros=0.5)
    H[:, 5] = 0
    _, weights = steps('kl', 'mu')
    values = []
    for _ in range(100):
        values.append(objective(F[None], H[None], W[None], 'kl').item())
        weights(F[None], H[None], W[None])
    assert np.isfinite(values).all()
    assert np.diff(values).max() <= 1e-12 * values[0]
    assert torch.isfinite(H).all()


# Starting points.


def test_nndsvd_is_scikit_learns():
    """With full rank, so that every singular vector is determined."""
    F = random(M, C, zeros=0.3)
    initialize = decomposition._nmf._initialize_nmf
    H_sk, W_sk = initialize(F.numpy(), R, init='nndsvd', eps=0)
    H, W = nndsvd(F[None], R)
    np.testing.assert_allclose(H[0].T.numpy(), H_sk, atol=1e-10)
    np.testing.assert_allclose(W[0].numpy(), W_sk, atol=1e-10)


def test_nndsvd_does_not_depend_on_the_signs_that_the_eigensolver_chooses(monkeypatch):
    F = (random(M, 3, seed=1) @ random(3, C, seed=2))[None]
    H, W = nndsvd(F, 6)
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, 'eigh', lambda gram: (eigh(gram)[0], -eigh(gram)[1]))
    other_H, other_W = nndsvd(F, 6)
    torch.testing.assert_close(other_H, H)
    torch.testing.assert_close(other_W, W)
    assert W[0].any(dim=1).all()


def test_zeros_are_filled_by_the_mean_but_not_in_the_padding():
    H = torch.tensor([[[0.0, 6.0, 0.0], [3.0, 3.0, 0.0]]])
    W = torch.tensor([[[0.0, 1.0], [1.0, 2.0]]])
    filled_H, filled_W = fill_zeros(H, W, [2])
    assert torch.equal(filled_H, torch.tensor([[[3.0, 6.0, 0.0], [3.0, 3.0, 0.0]]]))
    assert torch.equal(filled_W, torch.tensor([[[1.0, 1.0], [1.0, 2.0]]]))


def test_nndsvd_of_a_singular_matrix_has_no_weights_beyond_its_rank():
    F = random(M, 2, seed=1) @ random(2, C, seed=2)
    H, W = nndsvd(F[None], 4)
    assert torch.isfinite(H).all()
    assert torch.isfinite(W).all()
    assert not H[0, 2:].any()
    assert H[0, :2].any(dim=1).all()


def test_random_factors_do_not_depend_on_padding_and_leave_global_numbers_alone():
    state = torch.get_rng_state()
    F = random(2, M, C)
    H, W = random_factors(F, [M, 29], R, seed=5)
    short_H, short_W = random_factors(F[1:, :29], [29], R, seed=5)
    assert torch.equal(H[1, :, :29], short_H[0])
    assert torch.equal(W[1], short_W[0])
    assert not H[1, :, 29:].any()
    assert torch.equal(state, torch.get_rng_state())


# The whole.


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_not_worse_than_scikit_learn(loss, solver, seed):
    """On data with two dozen directions. Up to 1 %: the problem has many local minima."""
    F = (random(120, 24, seed=seed) - 0.5) @ (random(24, 20, seed=seed + 9) - 0.5)
    F = F.clamp(min=0)
    theirs = decomposition.NMF(
        8,
        init='nndsvd' if solver == 'hals' else 'nndsvda',
        solver='cd' if solver == 'hals' else 'mu',
        beta_loss='frobenius' if loss == 'frobenius' else 'kullback-leibler',
        tol=1e-6,
        max_iter=2000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        H = theirs.fit_transform(F.numpy())
    expected = objective(
        F[None], torch.from_numpy(H).T[None], torch.from_numpy(theirs.components_)[None], loss
    ).item()
    ours = factorize(F, 8, loss=loss, solver=solver, tol=1e-6, max_iter=2000)
    assert ours.converged
    assert ours.objective <= 1.01 * expected


def separable():
    """Four concepts with three channels of their own each."""
    H, W = random(M, 4, seed=1, zeros=0.4), torch.zeros(4, 12, dtype=torch.float64)
    for j in range(4):
        W[j, 3 * j : 3 * j + 3] = torch.tensor([1.0, 2.0, 0.5])
    return H, W


@pytest.mark.parametrize(('loss', 'solver'), [('frobenius', 'hals'), ('kl', 'mu')])
def test_concepts_with_channels_of_their_own_are_recovered_exactly(loss, solver):
    H, W = separable()
    result = factorize(H @ W, 4, loss=loss, solver=solver, max_iter=150, tol=0).normalized()
    assert result.residual < 1e-12
    order = result.W[:, ::3].argmax(dim=0)
    norm = W.norm(dim=1)
    torch.testing.assert_close(result.W[order], W / norm[:, None], atol=1e-10, rtol=0)
    torch.testing.assert_close(result.H[:, order], H * norm, atol=1e-10, rtol=0)


def test_multiplicative_frobenius_updates_approach_it_by_one_over_n():
    """The textbook rate where the solution has zeros, and why HALS is the default."""
    H, W = separable()
    residuals = [factorize(H @ W, 4, solver='mu', max_iter=n, tol=0).residual for n in (500, 1000)]
    assert residuals[1] < 2e-3
    assert residuals[0] / residuals[1] == pytest.approx(2, rel=0.1)


def test_as_many_concepts_as_channels_leave_no_residual(features):
    result = factorize(features[:, :7], 7, max_iter=1000, tol=0)
    assert result.residual < 1e-3


def test_kl_weights_times_the_concepts_sums_are_the_channel_sums(features):
    """Why V of the released code is close to a plain sum of channels."""
    result = factorize(features, R, loss='kl', init='random', tol=0, max_iter=20)
    sums = (result.H * result.W.sum(dim=1)).sum(dim=1)
    torch.testing.assert_close(sums, features.sum(dim=1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
def test_rows_may_come_in_any_order(features, loss, solver):
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    options = {'loss': loss, 'solver': solver, 'tol': 0, 'max_iter': 60}
    straight = factorize(features, R, **options)
    shuffled = factorize(features[order], R, **options)
    torch.testing.assert_close(shuffled.H, straight.H[order], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(shuffled.W, straight.W, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
@pytest.mark.parametrize('factor', [37.0, 1e-9])
def test_features_times_a_number_are_weights_times_it(features, loss, solver, factor):
    options = {'loss': loss, 'solver': solver, 'tol': 0, 'max_iter': 60}
    once = factorize(features, R, **options).normalized()
    times = factorize(factor * features, R, **options).normalized()
    torch.testing.assert_close(times.H / factor, once.H, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(times.W, once.W, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
@pytest.mark.parametrize('init', ['nndsvd', 'random'])
def test_the_same_call_gives_the_same_bits(features, loss, solver, init):
    calls = [factorize(features, R, loss=loss, solver=solver, init=init, seed=3) for _ in range(2)]
    assert torch.equal(calls[0].H, calls[1].H)
    assert torch.equal(calls[0].W, calls[1].W)


def test_another_seed_gives_another_start(features):
    calls = [factorize(features, R, init='random', seed=seed) for seed in (0, 1)]
    assert not torch.allclose(calls[0].H, calls[1].H)


def test_single_precision_agrees_with_double(features):
    double = factorize(features, R, tol=0, max_iter=100)
    single = factorize(features.float(), R, tol=0, max_iter=100)
    assert single.H.dtype == torch.float32
    assert single.objective == pytest.approx(double.objective, rel=1e-4)
    torch.testing.assert_close(single.H.double(), double.H, atol=1e-3, rtol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_even_under_autocast(features, dtype):
    half = features.to(dtype)
    expected = factorize(half.float(), R)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = factorize(half, R)
    assert result.H.dtype == torch.float32
    assert torch.equal(result.H, expected.H)


def test_the_result_says_how_it_went(features):
    stopped = factorize(features, R, max_iter=23, tol=0)
    assert (stopped.iterations, stopped.converged) == (23, False)
    assert len(stopped.history) == 6  # The start, 5, 10, 15, 20 and the last.
    assert stopped.history[-1] == stopped.objective
    done = factorize(features, R, max_iter=2000)
    assert done.converged
    assert done.iterations < 2000
    product = stopped.H @ stopped.W
    assert stopped.objective == pytest.approx((features - product).square().sum().item() / 2)
    assert stopped.residual == pytest.approx(((features - product).norm() / features.norm()).item())
    assert stopped.info()['nmf_iterations'] == 23


def test_normalized_keeps_the_product_and_drops_concepts_of_zeros(features):
    result = factorize(features, R, max_iter=20)
    result.W[2] = 0
    scaled = result.normalized()
    torch.testing.assert_close(scaled.H @ scaled.W, result.H @ result.W)
    norms = torch.ones(R, dtype=torch.float64)
    norms[2] = 0
    torch.testing.assert_close(scaled.W.norm(dim=1), norms)
    assert not scaled.H[:, 2].any()


def test_more_concepts_than_directions_leave_the_rest_empty():
    F = random(M, 1) @ random(1, C, seed=1)
    result = factorize(F, 4, max_iter=500, tol=1e-9)
    assert result.residual < 1e-5
    assert torch.isfinite(result.normalized().H).all()


# Dictionaries.


def test_a_fixed_dictionary_is_least_squares_with_non_negative_weights(features):
    W = random(R, C, seed=8)
    result = factorize(features, R, W=W, fixed=True, tol=1e-12, max_iter=5000)
    assert torch.equal(result.W, W)
    expected = np.stack([nnls(W.T.numpy(), row)[0] for row in features.numpy()])
    np.testing.assert_allclose(result.H.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
def test_a_concept_of_zeros_has_no_weights(features, loss, solver):
    W = random(R, C, seed=8)
    W[2] = 0
    result = factorize(features, R, loss=loss, solver=solver, W=W, fixed=True)
    assert not result.H[:, 2].any()
    assert result.H[:, 3].any()


def test_a_fixed_dictionary_under_kl_cannot_be_improved(features):
    """The gradient of the divergence is >= 0, and 0 where a weight is positive."""
    W = random(R, C, seed=8) + 0.05
    result = factorize(features, R, loss='kl', W=W, fixed=True, tol=0, max_iter=3000)
    gradient = W.sum(dim=1) - (features / (result.H @ W).clamp(min=1e-300)) @ W.T
    rows = features.any(dim=1)
    assert gradient[rows].min() > -1e-4
    assert (gradient * result.H)[rows].abs().max() < 1e-4


def test_a_dictionary_to_start_from_goes_on_where_it_was(features):
    cold = factorize(features, R, max_iter=300, tol=0)
    warm = factorize(features, R, W=cold.W, max_iter=20, tol=0)
    assert warm.objective <= cold.objective * (1 + 1e-4)
    worse = factorize(features, R, W=cold.W, fixed=True)
    assert warm.objective <= worse.objective * (1 + 1e-6)
    torch.testing.assert_close(warm.W, cold.W, atol=0.05, rtol=0)


# Batches.


@pytest.mark.parametrize(('loss', 'solver'), SOLVERS)
@pytest.mark.parametrize('init', ['nndsvd', 'random'])
def test_a_batch_is_its_frames(features, loss, solver, init):
    frames = [features, random(15, C, seed=5, zeros=0.2), features[:0], random(60, C, seed=6)]
    options = {'loss': loss, 'solver': solver, 'init': init, 'max_iter': 400}
    for frame, result in zip(frames, factorize_batch(frames, R, **options), strict=True):
        alone = factorize(frame, R, **options)
        assert (result.iterations, result.converged) == (alone.iterations, alone.converged)
        torch.testing.assert_close(result.H, alone.H, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(result.W, alone.W, rtol=1e-5, atol=1e-7)


def test_a_batch_shares_a_dictionary(features):
    W = random(R, C, seed=8)
    frames = [features, features[:9]]
    for frame, result in zip(frames, factorize_batch(frames, R, W=W, fixed=True), strict=True):
        alone = factorize(frame, R, W=W, fixed=True)
        torch.testing.assert_close(result.H, alone.H)
        assert torch.equal(result.W, W)


def test_a_batch_of_nothing():
    assert factorize_batch([], R) == []


# Edges.


@pytest.mark.parametrize('F', [torch.zeros(0, C), torch.zeros(6, C)], ids=['no rows', 'zeros'])
@pytest.mark.parametrize('loss', ['frobenius', 'kl'])
def test_nothing_to_factorise(F, loss):
    result = factorize(F, R, loss=loss)
    assert torch.equal(result.H, torch.zeros(len(F), R))
    assert torch.equal(result.W, torch.zeros(R, C))
    assert (result.iterations, result.converged, result.residual) == (0, True, 0.0)


def test_one_row():
    result = factorize(torch.tensor([[3.0, 0.0, 4.0]]), 1).normalized()
    torch.testing.assert_close(result.H, torch.tensor([[5.0]]))
    torch.testing.assert_close(result.W, torch.tensor([[0.6, 0.0, 0.8]]))


def test_a_random_start_takes_any_rank():
    result = factorize(random(6, 4), 9, init='random', max_iter=500)
    assert result.H.shape == (6, 9)
    assert result.residual < 0.05


def test_the_input_is_left_alone(features):
    F, W = features.clone(), random(R, C)
    kept = W.clone()
    factorize(F, R, loss='kl')
    factorize(F, R, W=W)
    assert torch.equal(F, features)
    assert torch.equal(W, kept)


def bad(value):
    F = random(M, C)
    F[1, 2] = value
    return F


@pytest.mark.parametrize(
    ('F', 'options', 'match'),
    [
        (bad(-0.5), {}, r"features >= 0 to factorise, received values down to -0.5.*'shift'"),
        (bad(float('nan')), {}, 'finite feature, received 1 of 480 values'),
        (bad(float('inf')), {}, 'finite feature, received 1 of 480 values'),
        (random(3, C), {}, r'rank <= min\(M, C\) = 3 .* received 5: lower the rank'),
        (random(M, 4), {}, r'rank <= min\(M, C\) = 4'),
        (random(M), {}, r'shape \(M, C\), received .* shape \(40,\)'),
        (torch.ones(M, C, dtype=torch.long), {}, 'floating-point features'),
        (random(M, C), {'rank': 0}, 'at least one concept'),
        (random(M, C), {'max_iter': 0}, 'one iteration'),
        (random(M, C), {'fixed': True}, 'a dictionary W with fixed=True, received none'),
        (random(M, C), {'W': random(R, C + 1)}, r'shape \(rank, C\) = \(5, 12\), received \(5, 13'),
        (random(M, C), {'W': -random(R, C)}, 'features >= 0'),
    ],
)
def test_what_cannot_be_factorised_is_refused(F, options, match):
    with pytest.raises(InputError, match=match):
        factorize(F, **{'rank': R, **options})


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        ({'loss': 'l1'}, r"Unknown loss 'l1': expected one of \['frobenius', 'kl'\]"),
        ({'solver': 'cd'}, r"solver for the loss 'frobenius' 'cd': expected one of \['hals', 'mu"),
        ({'loss': 'kl', 'solver': 'hals'}, r"solver for the loss 'kl' 'hals'"),
        ({'init': 'zeros'}, 'Unknown initialisation'),
    ],
)
def test_unknown_names_list_the_candidates(options, match):
    with pytest.raises(UnknownNameError, match=match):
        factorize(random(M, C), R, **options)


def test_policies_for_negative_features():
    F = torch.tensor([[-1.0, 2.0], [3.0, 5.0]])
    assert torch.equal(make_nonnegative(F, 'shift'), torch.tensor([[0.0, 0.0], [4.0, 3.0]]))
    assert torch.equal(make_nonnegative(F, 'clip'), torch.tensor([[0.0, 2.0], [3.0, 5.0]]))
    assert make_nonnegative(F.abs()) is not None
    with pytest.raises(InputError, match='down to -1: choose a layer'):
        make_nonnegative(F)
    with pytest.raises(UnknownNameError, match='policy for negative features'):
        make_nonnegative(F, 'ignore')
    for policy in ('refuse', 'shift', 'clip'):
        assert make_nonnegative(F[:0], policy).shape == (0, 2)
