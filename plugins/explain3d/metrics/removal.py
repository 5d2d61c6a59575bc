"""What is taken away from a frame, and in which order, to measure a saliency map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.normalize import require_finite


def local_regions(points: Tensor, boxes: Tensor, factor: float = 2.0) -> Tensor:
    """Tells which points lie in which object's local region.

    Args:
        points: (N, >= 2) x, y, ..., metres, LiDAR frame.
        boxes: (K, 7) boxes of the objects.
        factor: Radius of the region in diagonals of the box's footprint.

    Returns:
        (K, N) bool: bird's-eye-view distance to the centre below the radius.
    """
    distance = (points[:, :2] - boxes[:, None, :2]).norm(dim=2)
    return distance < region_radii(boxes, factor)[:, None]


def region_radii(boxes: Tensor, factor: float = 2.0) -> Tensor:
    """Returns the (K,) radii of the local regions of (K, 7) boxes, metres.

    Raises:
        InputError: If ``factor`` is not above 0.
    """
    if not factor > 0:
        raise InputError(f'Expected a factor > 0 for the radius of regions, received {factor}.')
    return factor * boxes[:, 3:5].norm(dim=1)


def removal_ranks(saliency: Tensor, regions: Tensor, seed: int = 0) -> Tensor:
    """Ranks the points of each region by falling saliency.

    The sort is stable, and equally salient points come in the order of one fixed permutation of
    the frame's points: in the order of a scan, ties would be removed from one side to the other.

    Args:
        saliency: (K, N) finite saliency.
        regions: (K, N) bool.
        seed: Of the permutation.

    Returns:
        (K, N) int64: 0 for the most salient point of the region, N outside of it.

    Raises:
        InputError: If the shapes differ, or a value is not finite.
    """
    if saliency.shape != regions.shape or saliency.ndim != 2:
        raise InputError(
            f'Expected saliency and regions of one shape (K, N), received '
            f'{tuple(saliency.shape)} and {tuple(regions.shape)}.'
        )
    require_finite(saliency, 'map')
    N = saliency.shape[1]
    # On the CPU, so that devices agree.
    shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    shuffled = shuffled.to(saliency.device)
    values = saliency.double().masked_fill(~regions, -torch.inf)[:, shuffled]
    order = shuffled[values.argsort(dim=1, descending=True, stable=True)]
    place = torch.arange(N, device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).masked_fill(~regions, N)


@dataclass(frozen=True)
class Schedule:
    """Which points of a frame are there at each step, for one object.

    Attributes:
        rank: (N,) int64 rank of each point, N outside of the region.
        region: (N,) bool.
        counts: (S,) number of points of the region that are treated at each step.
    """

    rank: Tensor
    region: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, rank: Tensor, region: Tensor, steps: int = 11) -> Schedule:
        """Returns the schedule of ``steps`` equal parts; a count is rounded to the nearest."""
        n, last = int(region.sum()), steps - 1
        return cls(rank, region, tuple((2 * n * s + last) // (2 * last) for s in range(steps)))

    def deleted(self, step: int) -> Tensor:
        """(N,) which points are left when the most salient part of the region is removed."""
        return ~self.region | (self.rank >= self.counts[step])

    def inserted(self, step: int) -> Tensor:
        """(N,) which points there are when of the region only the most salient part is."""
        return ~self.region | (self.rank < self.counts[step])


def area(curve: Tensor) -> Tensor:
    """Returns the area under curves over [0, 1] by the trapezoid rule.

    Args:
        curve: (..., S) values at S equidistant places, S >= 2.

    Returns:
        (...) areas.

    Raises:
        InputError: If there are fewer than two values.
    """
    if not curve.dim() or curve.shape[-1] < 2:
        raise InputError(f'Expected curves of two or more values, received {tuple(curve.shape)}.')
    return ((curve[..., 1:] + curve[..., :-1]) / 2).mean(dim=-1)
