"""Neighbour queries against loops over all pairs of points."""

from __future__ import annotations

import pytest
import torch

from explain3d.adapters.pcdet.cpu import stacked
from explain3d.adapters.pcdet.cpu.neighbours import (
    ball_query_wrapper,
    three_nn_wrapper,
    voxel_query_wrapper,
)

COUNTS, CENTRES = [60, 0, 45], [9, 2, 12]


def random(*shape, seed=0, size=4.0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * size


def square(a, b):
    """Squared distance as the operators define it, in their float32."""
    x, y, z = a - b
    return x * x + y * y + z * z


def begin(counts, frame):
    return sum(counts[:frame])


def centres_and_frames():
    return enumerate(f for f, count in enumerate(CENTRES) for _ in range(count))


@pytest.fixture
def sets():
    points, centres = random(sum(COUNTS), 3), random(sum(CENTRES), 3, seed=1)
    centres[0] = points[0]
    return points, centres


@pytest.mark.parametrize('at_once', [(1 << 22, 128), (100, 3)])
@pytest.mark.parametrize('radius', [0.3, 1.0, 2.5])
def test_ball_query(sets, radius, at_once, monkeypatch):
    monkeypatch.setattr(stacked, 'PAIRS_AT_ONCE', at_once[0])
    monkeypatch.setattr(stacked, '_CENTRES_AT_ONCE', at_once[1])
    points, centres = sets
    idx = torch.zeros(len(centres), 5, dtype=torch.int32)
    counts = torch.tensor(CENTRES, dtype=torch.int32), torch.tensor(COUNTS, dtype=torch.int32)
    ball_query_wrapper(3, len(centres), radius, 5, centres, counts[0], points, counts[1], idx)
    for m, frame in centres_and_frames():
        first = begin(COUNTS, frame)
        near = [
            k
            for k in range(COUNTS[frame])
            if square(centres[m], points[first + k]) < torch.tensor(radius) ** 2
        ][:5]
        expected = near + [near[0]] * (5 - len(near)) if near else [-1, 0, 0, 0, 0]
        assert idx[m].tolist() == expected


def test_the_radius_of_a_ball_is_not_included():
    idx = torch.zeros(1, 2, dtype=torch.int32)
    points, one = torch.tensor([[1.0, 0, 0], [0.5, 0, 0]]), torch.tensor([1])
    ball_query_wrapper(1, 1, 1.0, 2, torch.zeros(1, 3), one, points, torch.tensor([2]), idx)
    assert idx.tolist() == [[1, 1]]


@pytest.mark.parametrize('pairs', [1 << 22, 100])
def test_three_nearest(sets, pairs, monkeypatch):
    monkeypatch.setattr('explain3d.adapters.pcdet.cpu.neighbours.PAIRS_AT_ONCE', pairs)
    known, unknown = sets
    counts = [60, 2, 43]
    dist2, idx = torch.zeros(len(unknown), 3), torch.zeros(len(unknown), 3, dtype=torch.int32)
    three_nn_wrapper(unknown, torch.tensor(CENTRES), known, torch.tensor(counts), dist2, idx)
    for n, frame in centres_and_frames():
        first = begin(counts, frame)
        places = range(first, first + counts[frame])
        nearest = sorted((square(unknown[n], known[k]).item(), k) for k in places)
        nearest = (nearest + [(torch.inf, first)] * 3)[:3]
        assert idx[n].tolist() == [k for _, k in nearest]
        assert dist2[n].tolist() == [d for d, _ in nearest]


def test_the_first_of_equally_near_points():
    known = torch.tensor([[5.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    dist2, idx = torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int32)
    three_nn_wrapper(torch.zeros(1, 3), torch.tensor([1]), known, torch.tensor([5]), dist2, idx)
    assert idx.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize('pairs', [1 << 22, 100])
@pytest.mark.parametrize('samples', [1, 4, 60])
def test_voxel_query(samples, pairs, monkeypatch):
    monkeypatch.setattr('explain3d.adapters.pcdet.cpu.neighbours.PAIRS_AT_ONCE', pairs)
    generator = torch.Generator().manual_seed(0)
    size, reach, radius = (4, 6, 5), (1, 2, 1), 1.6
    occupied = torch.rand(2, *size, generator=generator) < 0.4
    frame, z, y, x = occupied.nonzero(as_tuple=True)
    xyz = torch.stack([x, y, z], dim=1) + 0.5
    table = torch.full((2, *size), -1, dtype=torch.int32)
    table[frame, z, y, x] = torch.arange(len(xyz), dtype=torch.int32)
    centres = torch.rand(30, 3, generator=generator) * torch.tensor([5.0, 6, 4])
    coords = torch.zeros(30, 4, dtype=torch.int32)
    coords[:, 0] = torch.arange(30) // 15
    coords[:, 1:] = centres.flip(1).int()
    idx = torch.zeros(30, samples, dtype=torch.int32)
    voxel_query_wrapper(30, *size, samples, radius, *reach, centres, xyz, coords, table, idx)

    found = 0
    for m in range(30):
        b, *centre = coords[m].tolist()
        near = []
        for dz in range(-reach[0], reach[0] + 1):
            for dy in range(-reach[1], reach[1] + 1):
                for dx in range(-reach[2], reach[2] + 1):
                    place = [c + d for c, d in zip(centre, (dz, dy, dx), strict=True)]
                    if not all(0 <= p < s for p, s in zip(place, size, strict=True)):
                        continue
                    point = int(table[b, place[0], place[1], place[2]])
                    if point >= 0 and square(xyz[point], centres[m]) <= torch.tensor(radius) ** 2:
                        near.append(point)
        near = near[:samples]
        found += len(near) > 0
        none = [-1] + [0] * (samples - 1)
        assert idx[m].tolist() == (near + [near[0]] * (samples - len(near)) if near else none)
    assert found > 0


def test_voxel_query_without_any_occupied_voxel():
    table, idx = torch.full((1, 2, 2, 2), -1), torch.zeros(3, 2, dtype=torch.int32)
    coords = torch.zeros(3, 4, dtype=torch.int32)
    xyz = torch.zeros(0, 3)
    voxel_query_wrapper(3, 2, 2, 2, 2, 1.0, 1, 1, 1, torch.zeros(3, 3), xyz, coords, table, idx)
    assert idx.tolist() == [[-1, 0]] * 3
