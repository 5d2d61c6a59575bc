"""Vector pooling against loops over centres and points, its gradient against autograd."""

from __future__ import annotations

import math

import pytest
import torch

from explain3d.adapters.pcdet.cpu.vector_pool import (
    query_stacked_local_neighbor_idxs_wrapper_stack,
    query_three_nn_by_stacked_local_idxs_wrapper_stack,
    vector_pool_grad_wrapper,
    vector_pool_wrapper,
)

COUNTS, CENTRES, DISTANCE, GRID = [40, 30], [5, 4], 1.2, (2, 3, 2)
CELLS = math.prod(GRID)


def near(offset, neighbor_type):
    if neighbor_type == 1:
        return sum(float(o) ** 2 for o in offset) <= DISTANCE**2
    return all(abs(float(o)) <= DISTANCE for o in offset)


def lists(points, centres, neighbor_type):
    """Indices of the neighbours of each centre, by loops."""
    found = []
    for m, centre in enumerate(centres):
        first, count = (0, COUNTS[0]) if m < CENTRES[0] else (COUNTS[0], COUNTS[1])
        places = range(first, first + count)
        found.append([k for k in places if near(points[k] - centre, neighbor_type)])
    return found


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(sum(COUNTS), 3, generator=generator, dtype=torch.float64) * 3
    centres = torch.rand(sum(CENTRES), 3, generator=generator, dtype=torch.float64) * 3
    centres[-1] += 50
    return points, centres, torch.tensor(COUNTS), torch.tensor(CENTRES)


def listed(sets, neighbor_type, samples, average):
    points, centres, counts, centre_counts = sets
    stack = torch.full((average * len(centres),), -1, dtype=torch.int32)
    start_len = torch.zeros(len(centres), 2, dtype=torch.int32)
    total = torch.zeros(1, dtype=torch.int32)
    query_stacked_local_neighbor_idxs_wrapper_stack(
        points, counts, centres, centre_counts, stack, start_len, total, average, DISTANCE,
        samples, neighbor_type,
    )  # fmt: skip
    return stack, start_len, int(total)


@pytest.mark.parametrize('samples', [-1, 3])
@pytest.mark.parametrize('neighbor_type', [0, 1])
def test_lists_of_neighbours(sets, neighbor_type, samples):
    stack, start_len, total = listed(sets, neighbor_type, samples, average=40)
    expected = lists(*sets[:2], neighbor_type)
    if samples > 0:
        expected = [found[:samples] for found in expected]
    assert total == sum(map(len, expected))
    for (start, length), found in zip(start_len.tolist(), expected, strict=True):
        assert stack[start : start + length].tolist() == found
    assert not expected[-1]
    assert max(map(len, expected)) >= 3


def test_lists_longer_than_there_is_room_for_tell_how_long_they_are(sets):
    stack, _, total = listed(sets, 0, -1, average=1)
    expected = sum(lists(*sets[:2], 0), [])
    assert total == len(expected) > len(stack)
    assert stack.tolist() == expected[: len(stack)]


@pytest.mark.parametrize('samples', [-1, 2])
def test_three_nearest_of_each_cell(sets, samples):
    points, centres = sets[:2]
    stack, start_len, total = listed(sets, 0, samples, average=40)
    cells = centres[:, None] + torch.rand(len(centres), CELLS, 3, dtype=torch.float64) - 0.5
    idx = torch.zeros(len(centres), CELLS, 3, dtype=torch.int32)
    dist2 = torch.zeros(len(centres), CELLS, 3, dtype=torch.float64)
    query_three_nn_by_stacked_local_idxs_wrapper_stack(
        points, centres, cells, idx, dist2, stack[:total], start_len, len(centres), CELLS
    )
    for m, found in enumerate(lists(points, centres, 0)):
        found = found[:samples] if samples > 0 else found
        for g in range(CELLS):
            order = sorted((float(((cells[m, g] - points[k]) ** 2).sum()), k) for k in found)
            order = order[:3] + (order[:1] or [(torch.inf, -1)]) * (3 - len(order[:3]))
            assert idx[m, g].tolist() == [k for _, k in order]
            assert dist2[m, g].tolist() == pytest.approx([d for d, _ in order])


def cell_of(offset):
    x, y, z = (
        math.floor((float(o) + DISTANCE) / (2 * DISTANCE / n))
        for o, n in zip(offset, GRID, strict=True)
    )
    return min(max(x * GRID[1] * GRID[2] + y * GRID[2] + z, 0), CELLS - 1)


def groups_of(points, centres, neighbor_type, pooling_type, samples):
    """(point, centre, cell) of what is pooled, by loops."""
    groups = []
    for m, found in enumerate(lists(points, centres, neighbor_type)):
        taken, cells = 0, set()
        for k in found:
            cell = cell_of(points[k] - centres[m])
            if (pooling_type == 1 and cell in cells) or 0 < samples <= taken:
                continue
            cells.add(cell)
            taken += 1
            groups.append((k, m, cell))
    return groups


def pooled(sets, features, neighbor_type, pooling_type, samples, room, each):
    points, centres, counts, centre_counts = sets
    new = torch.zeros(len(centres), CELLS * each, dtype=torch.float64)
    local = torch.zeros(len(centres), CELLS * 3, dtype=torch.float64)
    count = torch.zeros(len(centres), CELLS, dtype=torch.int32)
    groups = torch.zeros(room, 3, dtype=torch.int32)
    total = vector_pool_wrapper(
        points, counts, features, centres, centre_counts, new, local, count, groups, *GRID,
        DISTANCE, True, room, samples, neighbor_type, pooling_type,
    )  # fmt: skip
    return new, local, count, groups, total


@pytest.mark.parametrize('samples', [-1, 3])
@pytest.mark.parametrize('pooling_type', [0, 1])
@pytest.mark.parametrize('neighbor_type', [0, 1])
def test_pooling_and_its_gradient(sets, neighbor_type, pooling_type, samples):
    points, centres = sets[:2]
    generator = torch.Generator().manual_seed(1)
    # One chosen point gives its last channels alone: with as many as a cell has, all of them.
    channels, each = (6, 3) if pooling_type == 0 else (3, 3)
    features = torch.randn(len(points), channels, generator=generator).double().requires_grad_()
    new, local, count, groups, total = pooled(
        sets, features.detach(), neighbor_type, pooling_type, samples, 500, each
    )
    expected = groups_of(points, centres, neighbor_type, pooling_type, samples)
    assert total == len(expected) > 10
    assert groups[:total].tolist() == [list(group) for group in expected]

    sums = torch.zeros(len(centres), CELLS, each, dtype=torch.float64)
    places, counts = torch.zeros(len(centres), CELLS, 3).double(), torch.zeros(len(centres), CELLS)
    for k, m, cell in expected:
        for channel in range(channels):
            sums[m, cell, channel % each] += features[k, channel]
        places[m, cell] += points[k] - centres[m]
        counts[m, cell] += 1
    torch.testing.assert_close(new, sums.detach().flatten(1))
    torch.testing.assert_close(local, places.flatten(1))
    assert count.tolist() == counts.tolist()

    weights = torch.randn(len(centres), CELLS * each, generator=generator).double()
    mean = (sums / counts.clamp(min=1)[..., None]).flatten(1)
    (wanted,) = torch.autograd.grad((mean * weights).sum(), features)
    grad = torch.zeros_like(wanted)
    vector_pool_grad_wrapper(weights, count, groups[:total], grad)
    torch.testing.assert_close(grad, wanted)


def test_a_list_of_groups_that_is_too_short_tells_its_length(sets):
    features = torch.ones(sum(COUNTS), 3, dtype=torch.float64)
    *_, groups, total = pooled(sets, features, 0, 0, -1, 4, 3)
    expected = groups_of(*sets[:2], 0, 0, -1)
    assert total == len(expected)
    assert groups.tolist() == [list(group) for group in expected[:4]]


def test_the_last_channels_of_a_chosen_point_stand(sets):
    features = torch.arange(sum(COUNTS) * 4.0).double().view(-1, 4)
    new, _, count, groups, total = pooled(sets, features, 0, 1, -1, 500, 2)
    for k, m, cell in groups[:total].tolist():
        assert new.view(len(new), CELLS, 2)[m, cell].tolist() == features[k, 2:].tolist()
    assert total == int(count.sum())
