"""Non-negative matrix factorisation F ~ H W (Eq. 2 and 3 of FFAM) on the features' own device.

Three updates, each of which never increases its objective:

* ``hals`` (Frobenius): hierarchical alternating least squares, exact minimisation over one concept
  at a time (Cichocki and Phan, 2009). It works on the Gram matrices ``F W^T`` and ``W W^T``, which
  are small because a layer has few channels.
* ``mu`` (Frobenius or Kullback-Leibler): the multiplicative updates of Lee and Seung (2001).

In every iteration the dictionary ``W`` is updated first and the weights ``H`` last, so that ``H``
fits the dictionary it is returned with. Factors are kept as ``(B, r, M)`` and ``(B, r, C)``: one
concept's weights are contiguous, and a batch of frames is one more axis. Rows of zeros, with which
shorter frames are padded, have weights of zero under each update and change nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import InputError, UnknownNameError
from .nmf_init import fill_zeros, nndsvd, random_factors
from .normalize import require_finite

LOSSES = ('frobenius', 'kl')
SOLVERS = {'frobenius': ('hals', 'mu'), 'kl': ('mu',)}
INITS = ('nndsvd', 'random')
NEGATIVE_POLICIES = ('refuse', 'shift', 'clip')

#: Iterations between two looks at the objective, each of which waits for the device.
CHECK_EVERY = 10

Step = Callable[[Tensor, Tensor, Tensor], None]


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
        norm = self.W.norm(dim=1)
        inverse = torch.where(norm > 0, norm.reciprocal(), 0)
        return replace(self, H=self.H * norm, W=self.W * inverse[:, None])

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
        InputError: If features are negative under ``'refuse'``.
        UnknownNameError: If the policy is unknown.
    """
    _require(policy, NEGATIVE_POLICIES, 'policy for negative features')
    if features.numel() == 0:
        return features
    if policy == 'shift':
        return features - features.amin(dim=0)
    if policy == 'clip':
        return features.clamp(min=0)
    lowest = features.amin().item()
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

    The result is determined by the arguments. It is converged when, over ``CHECK_EVERY``
    iterations, the square root of the objective fell by no more than ``tol`` times its value at the
    start. With ``tol=0`` exactly ``max_iter`` iterations are done.

    Args:
        features: (M, C) features F, finite and >= 0. Half precision is computed in float32.
        rank: Number r of concepts. Above min(M, C) only ``init='random'`` can start it.
        loss: ``'frobenius'`` (Eq. 2) or ``'kl'``, the generalised Kullback-Leibler divergence.
        init: ``'nndsvd'`` (Boutsidis and Gallopoulos, 2008; no random numbers) or ``'random'``
            (absolute values of normal numbers, drawn on the CPU so that devices agree).
        solver: ``'hals'`` (Frobenius only, the default there) or ``'mu'``.
        max_iter: Most iterations.
        tol: Tolerance of the test for convergence.
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
    _check_numbers(rank, max_iter, fixed, W)
    if W is not None:
        W = _checked_dictionary(W, rank, frames)
    results: list[Factorization | None] = [_if_trivial(f, rank, loss, W) for f in frames]
    todo = [index for index, result in enumerate(results) if result is None]
    if not todo:
        return results
    if W is None and init == 'nndsvd':
        _check_rank(rank, min(min(frames[index].shape) for index in todo))

    features = torch.nn.utils.rnn.pad_sequence([frames[index] for index in todo], batch_first=True)
    update_both, update_weights = _steps(loss, solver)
    # A host's autocast would silently run these products in half precision.
    with torch.autocast(features.device.type, enabled=False):
        if W is not None:
            W = W.expand(len(todo), -1, -1).clone()
            H = _first_weights(features, W)
            step, iterations = (update_weights, max_iter) if fixed else (update_weights, 10)
            solved = _solve(features, H, W, step, loss, iterations, tol)
            H = torch.stack([s.H for s in solved])
        else:
            H, W = _start(features, rank, init, solver, seed)
        if not fixed:
            solved = _solve(features, H, W, update_both, loss, max_iter, tol)
    for index, result in zip(todo, solved, strict=True):
        M = frames[index].shape[0]
        results[index] = replace(result, H=result.H[:, :M].T.contiguous())
    return results


def hals(X: Tensor, A: Tensor, G: Tensor) -> None:
    """Minimises ``|F - X^T Y|`` over X >= 0, one row of X after the other, in place.

    A row whose factor is zero (``G`` has a zero on its diagonal) has no influence on the objective
    and is left as it is, so that the concept can come back when the other factor does.

    Args:
        X: (B, r, n) the factor to update.
        A: (B, r, n) product of the other factor and the features.
        G: (B, r, r) Gram matrix of the other factor.
    """
    diagonal = G.diagonal(dim1=-2, dim2=-1)
    inverse = torch.where(diagonal > 0, diagonal.reciprocal(), 0)
    # A step is x_j + (a_j - G_j X) / G_jj: with the rows of G divided once, one product remains.
    scaled_A, scaled_G = A * inverse[..., None], G * inverse[..., None]
    for j in range(X.shape[-2]):
        row = torch.baddbmm(scaled_A[:, j : j + 1], scaled_G[:, j : j + 1], X, alpha=-1)
        X[:, j : j + 1].add_(row).clamp_(min=0)


def mu_frobenius(X: Tensor, A: Tensor, G: Tensor) -> None:
    """Updates X in place by the multiplicative rule ``X * A / (G X)``; arguments as in ``hals``."""
    X.mul_(_quotient(A, G @ X))


def mu_kl(X: Tensor, Y: Tensor, F: Tensor) -> None:
    """Updates X in place by the multiplicative rule of the Kullback-Leibler divergence.

    A product of zero is raised to a floor, the square root of the smallest normal number, so that
    the quotient stays finite; every term it enters is multiplied by a zero. A row of X whose factor
    is zero becomes zero.

    Args:
        X: (B, r, n) the factor to update.
        Y: (B, r, m) the other factor.
        F: (B, n, m) features.
    """
    ratio = F / (X.mT @ Y).clamp_(min=_floor(F))
    X.mul_(_quotient(Y @ ratio.mT, Y.sum(dim=-1, keepdim=True)))


def objective(F: Tensor, H: Tensor, W: Tensor, loss: str) -> Tensor:
    """Returns the value that is minimised.

    Args:
        F: (B, M, C) features.
        H: (B, r, M) weights.
        W: (B, r, C) concepts.
        loss: ``'frobenius'`` or ``'kl'``. A feature whose product is 0 is charged at the floor of
            ``mu_kl``: a large divergence in place of an infinite one.

    Returns:
        (B,) ``|F - H^T W|^2 / 2`` or the divergence, in float64.
    """
    product = H.mT @ W
    if loss == 'frobenius':
        return _sum((F - product).square_()) / 2
    divergence = torch.xlogy(F, F / product.clamp(min=_floor(F)))
    return _sum(divergence.sub_(F).add_(product)).clamp_(min=0)


def _steps(loss: str, solver: str) -> tuple[Step, Step]:
    """Returns the steps that update both factors, and the weights alone."""
    if loss == 'kl':

        def dictionary(F: Tensor, H: Tensor, W: Tensor) -> None:
            mu_kl(W, H, F.mT)

        def weights(F: Tensor, H: Tensor, W: Tensor) -> None:
            mu_kl(H, W, F)
    else:
        rule = hals if solver == 'hals' else mu_frobenius

        def dictionary(F: Tensor, H: Tensor, W: Tensor) -> None:
            rule(W, H @ F, H @ H.mT)

        def weights(F: Tensor, H: Tensor, W: Tensor) -> None:
            rule(H, W @ F.mT, W @ W.mT)

    def both(F: Tensor, H: Tensor, W: Tensor) -> None:
        dictionary(F, H, W)
        weights(F, H, W)

    return both, weights


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
            converged = tol > 0 and fell <= tol * history[0] ** 0.5
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


def _start(F: Tensor, rank: int, init: str, solver: str, seed: int) -> tuple[Tensor, Tensor]:
    if init == 'random':
        return random_factors(F, rank, seed)
    H, W = nndsvd(F, rank)
    # A multiplicative update cannot leave zero.
    return (H, W) if solver == 'hals' else fill_zeros(F, H, W)


def _first_weights(F: Tensor, W: Tensor) -> Tensor:
    """Returns (B, r, M) equal weights for all concepts that give each row of F its sum."""
    return _quotient(F.sum(dim=-1), W.sum(dim=(-2, -1))[:, None])[:, None].repeat(
        1, W.shape[1], 1
    )


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """Returns a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / b, 0)


def _floor(F: Tensor) -> float:
    return torch.finfo(F.dtype).tiny ** 0.5


def _sum(values: Tensor) -> Tensor:
    """Returns the sum over the last two axes; the longer one, the rows, in float64."""
    return values.sum(dim=-1).sum(dim=-1, dtype=torch.float64)


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
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    require_finite(features, 'feature')
    return make_nonnegative(features)


def _checked_dictionary(W: Tensor, rank: int, frames: Sequence[Tensor]) -> Tensor:
    width = frames[0].shape[1] if frames else W.shape[-1]
    if tuple(W.shape) != (rank, width):
        raise InputError(
            f'Expected a dictionary of shape (rank, C) = ({rank}, {width}), received '
            f'{tuple(W.shape)}: use one made with the same layer and rank.'
        )
    W = _checked(W)
    return W.to(frames[0]) if frames else W


def _check_numbers(rank: int, max_iter: int, fixed: bool, W: Tensor | None) -> None:
    if rank < 1 or max_iter < 1:
        raise InputError(
            f'Expected at least one concept and one iteration, received rank={rank} and '
            f'max_iter={max_iter}.'
        )
    if fixed and W is None:
        raise InputError('Expected a dictionary W with fixed=True, received none: pass W.')


def _check_rank(rank: int, largest: int) -> None:
    if rank > largest:
        raise InputError(
            f"Expected rank <= min(M, C) = {largest} with init='nndsvd', received {rank}: lower "
            f"the rank or use init='random'."
        )


def _require(name: str, known: Sequence[str], kind: str) -> None:
    if name not in known:
        raise UnknownNameError(f'Unknown {kind} {name!r}: expected one of {list(known)}.')
