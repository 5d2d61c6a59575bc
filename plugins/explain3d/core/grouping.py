"""Which regions of a frame can share a forward pass because they cannot influence each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .black_box import Region


def independent(a: Region, b: Region, reach: tuple[float, float] | None) -> bool:
    """Whether changing points in one region leaves the candidates of the other as they are.

    A candidate in a region sees points up to ``reach`` away from its cell, in a rectangle: along x
    or along y, the regions have to be farther apart than that.

    Args:
        a: A region.
        b: Another one.
        reach: Of the detector, x and y in metres; None for not bounded.
    """
    if reach is None:
        return False
    apart = (abs(a.x - b.x), abs(a.y - b.y))
    return any(d > a.radius + b.radius + r for d, r in zip(apart, reach, strict=True))


def share_passes(
    regions: Sequence[Region],
    reach: tuple[float, float] | None,
    cost: Callable[[Sequence[Region]], float] = lambda _: 1.0,
) -> list[list[int]]:
    """Puts regions that are independent of each other into groups, one forward pass each.

    Greedy: each region joins the first group of which it is independent and in which it costs
    less than by itself. Where all passes cost the same this is first-fit colouring.

    Args:
        regions: R regions.
        reach: As in ``independent``.
        cost: Cost of a pass over a group of regions.

    Returns:
        Groups of indices; each of the R in exactly one.
    """
    groups: list[list[int]] = []
    for i, region in enumerate(regions):
        alone = cost([region])
        for group in groups:
            members = [regions[j] for j in group]
            if all(independent(region, member, reach) for member in members) and (
                cost([*members, region]) < cost(members) + alone
            ):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups
