"""The updates of non-negative matrix factorisation. Factors are (B, r, M) and (B, r, C).

None of them increases its objective (beyond rounding):

* ``hals`` (Frobenius): hierarchical alternating least squares, the exact minimum over one concept
  at a time (Cichocki and Phan, 2009). It works on ``F W^T`` and the Gram matrix ``W W^T``, which
  are small because a layer has few channels.
* ``mu_frobenius`` and ``mu_kl``: the multiplicative updates of Lee and Seung (2001).

The dictionary ``W`` is updated first and the weights ``H`` last, so that ``H`` fits the dictionary
it is returned with. One function serves both: the problem is the same with F transposed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor], None]


def hals(X: Tensor, A: Tensor, G: Tensor) -> None:
    """Minimises ``|F - X^T Y|`` over X >= 0, one row of X after the other, in place.

    A row whose factor is zero has no influence on the objective and is left as it is, so that the
    concept can come back when the other factor does. Zero is what rounding cannot tell from it: a
    norm below eps times the largest one.

    Args:
        X: (B, r, n) the factor to update.
        A: (B, r, n) product of the other factor and the features.
        G: (B, r, r) Gram matrix of the other factor.
    """
    diagonal = G.diagonal(dim1=-2, dim2=-1)
    limit = diagonal.amax(dim=-1, keepdim=True) * torch.finfo(G.dtype).eps ** 2
    inverse = torch.where(diagonal > limit, diagonal.reciprocal(), 0)
    # A step is x_j + (a_j - G_j X) / G_jj: with all divided once, and the x_j put into the matrix,
    # it is one product. A row without influence becomes x_j.
    scaled_A = A * inverse[..., None]
    scaled_G = torch.diag_embed(torch.ones_like(inverse)) - G * inverse[..., None]
    rows = (matrix.split(1, dim=-2) for matrix in (X, scaled_A, scaled_G))
    for x, a, g in zip(*rows, strict=True):
        torch.clamp(torch.baddbmm(a, g, X), min=0, out=x)


def mu_frobenius(X: Tensor, A: Tensor, G: Tensor) -> None:
    """Updates X in place by the multiplicative rule ``X * A / (G X)``; arguments as in ``hals``."""
    X.mul_(quotient(A, G @ X))


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
    X.mul_(quotient(Y @ ratio.mT, Y.sum(dim=-1, keepdim=True)))


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


def steps(loss: str, solver: str) -> tuple[Step, Step]:
    """Returns the step that updates both factors, and the one that updates the weights alone.

    A step changes H (B, r, M) and W (B, r, C) in place, given F (B, M, C).
    """
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


def equal_weights(F: Tensor, W: Tensor) -> Tensor:
    """Returns (B, r, M) equal weights for all concepts that give each row of F its sum."""
    return quotient(F.sum(dim=-1), W.sum(dim=(-2, -1))[:, None])[:, None].repeat(1, W.shape[1], 1)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """Returns a / b, and 0 where b is 0 or too small to divide by."""
    return torch.where(b >= torch.finfo(b.dtype).tiny, a / b, 0)


def _floor(F: Tensor) -> float:
    return torch.finfo(F.dtype).tiny ** 0.5


def _sum(values: Tensor) -> Tensor:
    """Returns the sum over the last two axes; the longer one, the rows, in float64."""
    return values.sum(dim=-1).sum(dim=-1, dtype=torch.float64)
