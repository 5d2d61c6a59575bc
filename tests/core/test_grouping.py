"""Regions that share a pass over a part of the frame."""

from explain3d.core.grouping import join_windows


def spanning(places):
    """The cost of a window over some places: an overhead, and its length."""
    return lambda group: 0.05 + (max(places[i] for i in group) - min(places[i] for i in group)) / 10


def test_regions_join_where_that_is_cheaper():
    cost = spanning([0.0, 8.0, 0.3, 8.2])
    assert join_windows(4, cost) == [[0, 2], [1, 3]]
    assert join_windows(1, cost) == [[0]]
    assert join_windows(0, cost) == []


def test_the_whole_frame_where_that_is_cheaper():
    assert join_windows(3, lambda group: 0.5, whole=10) == [[0, 1, 2]]  # Joining costs nothing.
    assert join_windows(3, lambda group: 0.4 * len(group)) == [[0, 1, 2]]
    assert join_windows(3, lambda group: 0.3 * len(group) ** 2) == [[0], [1], [2]]
    assert join_windows(3, lambda group: 0.4 * len(group) ** 2) == [[0, 1, 2]]
