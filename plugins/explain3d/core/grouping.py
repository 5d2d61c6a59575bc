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


def join_windows(
    count: int, cost: Callable[[Sequence[int]], float], whole: float = 1.0
) -> list[list[int]]:
    """Puts regions into groups, one forward pass over a part of the frame each.

    Greedy: each region joins the group to whose pass it adds the least, where that is less than a
    pass by itself takes.

    Args:
        count: Number of regions.
        cost: Cost of a pass over a group of them, by their indices.
        whole: Cost of a pass over the whole frame.

    Returns:
        Groups of indices; each region in exactly one. All of them in one, where groups together
        take no less than the whole frame.
    """
    groups: list[list[int]] = []
    costs: list[float] = []
    for i in range(count):
        joined = [cost([*group, i]) for group in groups]
        added = [after - before for after, before in zip(joined, costs, strict=True)]
        alone = cost([i])
        if added and min(added) < alone:
            best = added.index(min(added))
            groups[best].append(i)
            costs[best] = joined[best]
        else:
            groups.append([i])
            costs.append(alone)
    return groups if sum(costs) < whole else [list(range(count))]


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
