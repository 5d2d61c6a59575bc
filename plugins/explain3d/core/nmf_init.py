"""Where the factorisation starts. Factors are (B, r, M) and (B, r, C) as in ``nmf_updates``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_factors(
    features: Tensor, lengths: Sequence[int], rank: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Returns the absolute values of standard normal numbers.

    They are drawn on the CPU, as generators of different devices give different numbers, and for
    every frame afresh, so that a frame's numbers do not depend on the others.

    Args:
        features: (B, M, C) features.
        lengths: Rows of each frame; the others are padding, whose weights are zero.
        rank: Number r of concepts.
        seed: Seed of the generator.

    Returns:
        (B, r, M) weights and (B, r, C) concepts.
    """
    B, M, C = features.shape
    H, W = features.new_zeros(B, rank, M), features.new_empty(B, rank, C)
    for b, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed)
        W[b] = torch.randn(rank, C, generator=generator, dtype=torch.float64).abs()
        H[b, :, :length] = torch.randn(rank, length, generator=generator, dtype=torch.float64).abs()
    return H, W


def nndsvd(features: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns the non-negative double singular value decomposition (Boutsidis, Gallopoulos 2008).

    Of each singular triplet (s, u, v) the positive or the negative parts of u and v are kept,
    whichever weigh more. The right singular vectors are the eigenvectors of the (C, C) Gram matrix,
    so the cost of the decomposition does not grow with the number of rows.

    Args:
        features: (B, M, C) features >= 0, rank <= min(M, C).
        rank: Number r of concepts.

    Returns:
        (B, r, M) weights and (B, r, C) concepts, which share the singular value evenly. A triplet
        beyond the rank of the features has zero weights and keeps its concept.
    """
    wide = features.double()
    values, vectors = torch.linalg.eigh(wide.mT @ wide)
    V = _fix_signs(vectors.flip(-1)[..., :rank].mT)
    singular = values.flip(-1)[:, :rank].clamp(min=0).sqrt()
    # The eigenvalues are right to C eps of the largest, and these are the roots.
    rounding = (wide.shape[-1] * torch.finfo(wide.dtype).eps) ** 0.5
    significant = singular > singular[:, :1] * rounding
    inverse = torch.where(significant, singular.reciprocal(), 0)
    U = (V @ wide.mT) * inverse[..., None]

    u, v, weight = _heavier_parts(U, V)
    scale = (singular * weight * significant).sqrt()[..., None]
    concept_scale = torch.where(significant[..., None], scale, 1)
    return (u * scale).to(features.dtype), (v * concept_scale).to(features.dtype)


def fill_zeros(H: Tensor, W: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Replaces the zeros of each factor by its mean, for updates that cannot leave zero.

    NNDSVDa takes the mean of the features; the factor's own scales as the factor does.

    Args:
        H: (B, r, M) weights.
        W: (B, r, C) concepts.
        lengths: Rows of each frame; the weights of the others stay zero.

    Returns:
        The factors.
    """
    rows = torch.tensor(lengths, device=H.device)[:, None, None]
    real = torch.arange(H.shape[2], device=H.device) < rows
    mean_H = H.sum(dim=(1, 2), keepdim=True) / (rows * H.shape[1])
    mean_W = W.mean(dim=(1, 2), keepdim=True)
    return torch.where(H > 0, H, mean_H) * real, torch.where(W > 0, W, mean_W)


def _fix_signs(V: Tensor) -> Tensor:
    """Turns each row so that its entry of largest magnitude is positive."""
    largest = V.gather(-1, V.abs().argmax(dim=-1, keepdim=True))
    return torch.where(largest < 0, -V, V)


def _heavier_parts(U: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns unit parts u, v of one sign and the product of their lengths, for each row."""
    parts = []
    for sign in (1, -1):
        u, v = (sign * U).clamp(min=0), (sign * V).clamp(min=0)
        u_norm, v_norm = u.norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True)
        tiny = torch.finfo(U.dtype).tiny
        parts.append((u / u_norm.clamp(min=tiny), v / v_norm.clamp(min=tiny), u_norm * v_norm))
    (u, v, weight), (other_u, other_v, other) = parts
    keep = weight >= other
    return (
        torch.where(keep, u, other_u),
        torch.where(keep, v, other_v),
        torch.where(keep, weight, other)[..., 0],
    )
