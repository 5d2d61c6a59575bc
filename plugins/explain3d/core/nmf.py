"""Non-negative matrix factorisation F ~ H W (Eq. 2 and 3 of FFAM) on the features' own device.

``nmf_updates`` has the steps, ``nmf_init`` and ``nmf_coarse`` the starting points. Several frames
are factorised at once by padding them with rows of zeros, whose weights are zero and which change
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from .errors import InputError, UnknownNameError
from .nmf_coarse import coarse
from .nmf_init import fill_zeros, nndsvd, random_factors
from .nmf_scale import LEFT, Scale, scale_of
from .nmf_updates import Step, equal_weights, objective, quotient, steps
from .normalize import full_precision, require_finite
from .precision import full_precision_kernels

LOSSES = ('frobenius', 'kl')
SOLVERS = {'frobenius': ('hals', 'mu'), 'kl': ('mu',)}
INITS = ('nndsvd', 'coarse', 'random')
NEGATIVE_POLICIES = ('refuse', 'shift', 'clip')

#: Iterations between two looks at the objective, each of which waits for the device.
CHECK_EVERY = 5
#: The iterations that ``tol`` is the fall over.
TOL_OVER = 10
#: Iterations that fit weights to a dictionary, before both are improved.
WEIGHTS_FIRST = 10


@dataclass(frozen=True, eq=False)
class Factorization:
    """The factors of one frame and how they were found.

    Attributes:
        H: (M, r) weight of each concept in each row, >= 0.
        W: (r, C) concept vectors, >= 0.
        loss: ``'frobenius'`` or ``'kl'``.
        iterations: Iterations done.
        converged: Whether the tolerance was met within the iterations allowed.
        objective: ``|F - H W|^2 / 2`` or the Kullback-Leibler divergence, at the end.
        residual: ``|F - H W| / |F|`` in the Frobenius norm, whatever the loss; 0 where F is 0.
        history: The objective at the start and at each check.
    """

    H: Tensor
    W: Tensor
    loss: str
    iterations: int
    converged: bool
    objective: float
    residual: float
    history: tuple[float, ...] = ()

    @property
    def rank(self) -> int:
        """Number of concepts."""
        return self.W.shape[0]

    def normalized(self) -> Factorization:
        """Returns the factors with concept vectors of unit Euclidean norm and the same product.

        A concept vector of zeros contributes nothing: its weights become zero.
        """
        norm = _lengths(self.W)
        return replace(self, H=self.H * norm, W=quotient(self.W, norm[:, None]))

    def info(self) -> dict[str, float | int | bool | str]:
        """Returns what a result file keeps of the factorisation, as plain data."""
        return {
            'nmf_loss': self.loss,
            'nmf_rank': self.rank,
            'nmf_iterations': self.iterations,
            'nmf_converged': self.converged,
            'nmf_objective': self.objective,
            'nmf_residual': self.residual,
        }


def _lengths(W: Tensor) -> Tensor:
    """Returns the Euclidean norm of each row, also where its square would leave the dtype."""
    largest = W.amax(dim=1)
    usual = (largest > 1e-8) & (largest < 1e8)
    return torch.where(usual, W.norm(dim=1), largest * quotient(W, largest[:, None]).norm(dim=1))


def make_nonnegative(features: Tensor, policy: str = 'refuse') -> Tensor:
    """Returns features that can be factorised.

    Args:
        features: (M, C) features.
        policy: What to do if some are negative: ``'refuse'``, ``'clip'`` at zero, or ``'shift'``
            each channel by its minimum. ``'shift'`` shifts every channel, also one whose minimum
            is positive, as the released code of FFAM does.

    Returns:
        (M, C) features >= 0; ``features`` itself where nothing had to be done.

    Raises:
        InputError: If features are not finite, or negative under ``'refuse'``.
        UnknownNameError: If the policy is unknown.
    """
    _require(policy, NEGATIVE_POLICIES, 'policy for negative features')
    if features.numel() == 0:
        return features
    lowest, highest = torch.stack([features.amin(), features.amax()]).tolist()
    if not math.isfinite(highest - lowest):
        require_finite(features, 'feature')
    if policy == 'shift':
        return features - features.amin(dim=0)
    if policy == 'clip':
        return features.clamp(min=0)
    if lowest < 0:
        raise InputError(
            f'Expected features >= 0 to factorise, received values down to {lowest:.4g}: choose a '
            f"layer that ends in a ReLU, or set negative='shift' (by each channel's minimum) or "
            f"negative='clip' (at zero)."
        )
    return features


def factorize(
    features: Tensor,
    rank: int,
    *,
    loss: str = 'frobenius',
    init: str = 'nndsvd',
    solver: str | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    seed: int = 0,
    W: Tensor | None = None,
    fixed: bool = False,
) -> Factorization:
    """Factorises non-negative features into concepts: F ~ H W, H and W >= 0 (Eq. 2 of FFAM).

    The result is determined by the arguments. It is converged when the square root of the
    objective falls by no more than ``tol`` times its value at the start in ten iterations, which is
    told from the last five. With ``tol=0`` exactly ``max_iter`` iterations are done.

    Args:
        features: (M, C) features F, finite and >= 0. Half precision is computed in float32.
        rank: Number r of concepts. Above min(M, C) only ``init='random'`` can start it.
        loss: ``'frobenius'`` (Eq. 2) or ``'kl'``, the generalised Kullback-Leibler divergence.
        init: ``'nndsvd'`` (Boutsidis and Gallopoulos, 2008; no random numbers), ``'random'``
            (absolute values of normal numbers, drawn on the CPU so that devices agree), or
            ``'coarse'``: where there are thousands of rows, the best of several starts over a part
            of them, see ``nmf_coarse``: a fraction of the time, and less dependent on the start;
            ``'nndsvd'`` where there are fewer, and the channels where there is a concept for each.
        solver: ``'hals'`` (Frobenius only, the default there) or ``'mu'``.
        max_iter: Most iterations.
        tol: Tolerance of the test for convergence, at least 0.
        seed: Seed of ``init='random'``.
        W: (rank, C) concepts to start from in place of ``init``; H is then fitted to them first.
        fixed: Leave ``W`` as it is and solve for H alone: a dictionary carried through a sequence.

    Returns:
        The factors, on the device of ``features``, in its dtype (float32 for half precision), and
        as the solver left them: see ``Factorization.normalized``.

    Raises:
        InputError: If features are negative or not finite, or shapes or numbers do not fit.
        UnknownNameError: If a loss, solver or initialisation is unknown.
    """
    return factorize_batch(
        [features], rank, loss=loss, init=init, solver=solver, max_iter=max_iter, tol=tol,
        seed=seed, W=W, fixed=fixed,
    )[0]  # fmt: skip


@torch.no_grad()
def factorize_batch(
    frames: Sequence[Tensor],
    rank: int,
    *,
    loss: str = 'frobenius',
    init: str = 'nndsvd',
    solver: str | None = None,
    max_iter: int = 200,
    tol: float = 1e-4,
    seed: int = 0,
    W: Tensor | None = None,
    fixed: bool = False,
) -> list[Factorization]:
    """Factorises several frames at once, each for itself; see ``factorize``.

    Frames are padded with rows of zeros. Each stops at its own iteration, and the result of each is
    that of ``factorize`` to rounding.

    Args:
        frames: (M_b, C) features of each frame, of one width, dtype and device.
        rank: As in ``factorize``, and so are the other arguments.
        loss: See there.
        init: See there.
        solver: See there.
        max_iter: See there.
        tol: See there.
        seed: See there; every frame starts with the same numbers.
        W: See there; one dictionary for all frames.
        fixed: See there.

    Returns:
        One result a frame.

    Raises:
        InputError: As ``factorize``.
        UnknownNameError: As ``factorize``.
    """
    _require(loss, LOSSES, 'loss')
    solver = solver or SOLVERS[loss][0]
    _require(solver, SOLVERS[loss], f'solver for the loss {loss!r}')
    _require(init, INITS, 'initialisation')
    frames = [_checked(frame) for frame in frames]
    _check_numbers(rank, max_iter, tol, fixed, W)
    if W is not None:
        W = _checked_dictionary(W, rank, frames)
    results: list[Factorization | None] = [_if_trivial(f, rank, loss, W) for f in frames]
    todo = [index for index, result in enumerate(results) if result is None]
    if not todo:
        return results
    if W is None and init != 'random':
        _check_rank(rank, min(min(frames[index].shape) for index in todo))

    scales, largest = _scales([frames[index] for index in todo], W)
    features = torch.nn.utils.rnn.pad_sequence(
        [scale.divide(frames[index]) for scale, index in zip(scales, todo, strict=True)],
        batch_first=True,
    )
    update_both, update_weights = steps(loss, solver)
    # A host's autocast would silently run these products in half precision, and TF32 in less.
    with torch.autocast(features.device.type, enabled=False), full_precision_kernels():
        if W is not None:
            W = largest.divide(W).expand(len(todo), -1, -1).clone()
            H = equal_weights(features, W)
            iterations = max_iter if fixed else WEIGHTS_FIRST
            solved = _solve(features, H, W, update_weights, loss, iterations, tol)
            H = torch.stack([s.H for s in solved])
        else:
            lengths = [len(frames[index]) for index in todo]
            H, W = _start(features, lengths, rank, init, solver, seed)
        if not fixed:
            solved = _solve(features, H, W, update_both, loss, max_iter, tol)
    for index, result, scale in zip(todo, solved, scales, strict=True):
        M = frames[index].shape[0]
        result = _rescaled(result, scale, largest)
        # HALS leaves the weights of a concept of zeros as they were: they mean nothing.
        alive = result.W.any(dim=1, keepdim=True)
        results[index] = replace(result, H=(result.H[:, :M] * alive).T.contiguous())
    return results


def _scales(frames: Sequence[Tensor], W: Tensor | None) -> tuple[list[Scale], Scale | None]:
    """Returns the scale of each frame, and that of a dictionary if there is one."""
    scales = [scale_of(frame) for frame in frames]
    return scales, None if W is None else scale_of(W)


def _rescaled(result: Factorization, scale: Scale, dictionary: Scale | None) -> Factorization:
    """Returns the factors of features that were divided by ``scale``, for those that were not."""
    if dictionary is None:
        weights = concepts = scale.root()
    else:
        weights, concepts = scale.over(dictionary), dictionary
        if weights.exponent > math.log2(torch.finfo(result.H.dtype).max) - LEFT:
            raise InputError(
                f'Expected a dictionary of the size of the features, received features of about '
                f'2^{scale.exponent} and a dictionary of about 2^{dictionary.exponent}: scale the '
                'concepts to unit length.'
            )
    degree = 2 if result.loss == 'frobenius' else 1
    return replace(
        result,
        H=weights.multiply(result.H),
        W=concepts.multiply(result.W),
        objective=scale.of_objective(result.objective, degree),
        history=tuple(scale.of_objective(value, degree) for value in result.history),
    )


def _solve(
    F: Tensor, H: Tensor, W: Tensor, step: Step, loss: str, max_iter: int, tol: float
) -> list[Factorization]:
    """Repeats ``step`` until each frame has converged; returns H as (r, M)."""
    values = objective(F, H, W, loss).tolist()
    histories = [[value] for value in values]
    results: list[Factorization | None] = [None] * len(values)
    active = list(range(len(values)))
    for iteration in range(1, max_iter + 1):
        step(F, H, W)
        last = iteration == max_iter
        if iteration % CHECK_EVERY and not last:
            continue
        values = objective(F, H, W, loss).tolist()
        going = []
        for place, frame in enumerate(active):
            history = histories[frame]
            history.append(values[place])
            fell = history[-2] ** 0.5 - history[-1] ** 0.5
            least = tol * history[0] ** 0.5 * CHECK_EVERY / TOL_OVER
            converged = tol > 0 and fell <= least
            if converged or last:
                residual = _residual(F[place], H[place], W[place])
                results[frame] = Factorization(
                    H[place], W[place], loss, iteration, converged,
                    values[place], residual, tuple(history),
                )  # fmt: skip
            else:
                going.append(place)
        if not going:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            F, H, W = F[going], H[going], W[going]
    return results


def _start(
    F: Tensor, lengths: Sequence[int], rank: int, init: str, solver: str, seed: int
) -> tuple[Tensor, Tensor]:
    if init == 'random':
        return random_factors(F, lengths, rank, seed)
    H, W = coarse(F, lengths, rank) if init == 'coarse' else nndsvd(F, rank)
    # A multiplicative update cannot leave zero.
    return (H, W) if solver == 'hals' else fill_zeros(H, W, lengths)


def _residual(F: Tensor, H: Tensor, W: Tensor) -> float:
    return ((F - H.mT @ W).norm() / F.norm()).item()


def _if_trivial(F: Tensor, rank: int, loss: str, W: Tensor | None) -> Factorization | None:
    """Returns the factors of a frame without rows or of zeros; ``None`` for all others."""
    if F.numel() and F.any():
        return None
    H = F.new_zeros(F.shape[0], rank)
    W = F.new_zeros(rank, F.shape[1]) if W is None else W.clone()
    return Factorization(H, W, loss, 0, True, 0.0, 0.0, (0.0,))


def _checked(features: Tensor) -> Tensor:
    """Returns (M, C) features in a dtype to compute in, or raises what is wrong with them."""
    if features.ndim != 2 or not features.is_floating_point():
        raise InputError(
            f'Expected floating-point features of shape (M, C), received {features.dtype} of shape '
            f'{tuple(features.shape)}: pass one row per voxel.'
        )
    return make_nonnegative(full_precision(features))


def _checked_dictionary(W: Tensor, rank: int, frames: Sequence[Tensor]) -> Tensor:
    width = frames[0].shape[1] if frames else W.shape[-1]
    if tuple(W.shape) != (rank, width):
        raise InputError(
            f'Expected a dictionary of shape (rank, C) = ({rank}, {width}), received '
            f'{tuple(W.shape)}: use one made with the same layer and rank.'
        )
    W = _checked(W)
    return W.to(frames[0]) if frames else W


def _check_numbers(rank: int, max_iter: int, tol: float, fixed: bool, W: Tensor | None) -> None:
    whole = isinstance(rank, Integral) and isinstance(max_iter, Integral)
    if not whole or rank < 1 or max_iter < 1:
        raise InputError(
            f'Expected whole numbers of at least one concept and one iteration, received '
            f'rank={rank} and max_iter={max_iter}.'
        )
    if not 0 <= tol < math.inf:
        raise InputError(f'Expected a tolerance >= 0, received tol={tol}.')
    if fixed and W is None:
        raise InputError('Expected a dictionary W with fixed=True, received none: pass W.')


def _check_rank(rank: int, largest: int) -> None:
    if rank > largest:
        raise InputError(
            f"Expected rank <= min(M, C) = {largest} without init='random', received {rank}: lower "
            f"the rank or use init='random'."
        )


def _require(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise UnknownNameError(f'Unknown {kind} {name!r}: expected one of {list(known)}.')
