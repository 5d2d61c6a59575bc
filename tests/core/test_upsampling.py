"""The search and the weighted sum against brute force over all voxels, point by point."""

import math
from fractions import Fraction

import pytest
import torch

from explain3d.core import upsampling
from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.structures import LayerFeatures, VoxelGeometry
from explain3d.core.upsampling import find_neighbours

#: Powers of two, so that a point on a lattice has distances that tie exactly.
BINARY = VoxelGeometry((-2.0, -1.0, 0.0), (0.125, 0.125, 0.25), (4.0, 4.0, 4.0))
METRIC = VoxelGeometry((0.0, -39.7, -3.0), (0.05, 0.05, 0.1), (4.0, 4.0, 4.0))


def layer(coords, shape, geometry=BINARY):
    coords = torch.as_tensor(coords, dtype=torch.long).reshape(-1, 3)
    return LayerFeatures(torch.zeros(len(coords), 2), coords, shape, geometry, 'layer')


def random_layer(seed, shape, share, geometry=BINARY):
    generator = torch.Generator().manual_seed(seed)
    coords = (torch.rand(shape, generator=generator) < share).nonzero()
    order = torch.randperm(len(coords), generator=generator)  # Rows come in any order.
    return layer(coords[order], shape, geometry)


def random_points(seed, n, where, lattice=None):
    """Points in and around the grid, in float64; on a lattice of parts of a voxel where asked."""
    generator = torch.Generator().manual_seed(seed + 100)
    size = torch.tensor(where.geometry.voxel_size, dtype=torch.float64)
    origin = torch.tensor(where.geometry.origin, dtype=torch.float64)
    cells = torch.tensor(where.spatial_shape[::-1], dtype=torch.float64)
    places = torch.rand(n, 3, generator=generator, dtype=torch.float64) * (cells + 4) - 2
    if lattice:
        places = (places * lattice).round() / lattice
    return origin + places * size


def brute_force(points, where, values, radius, k):
    """Eq. 8 to 10, with exact arithmetic for the order of neighbours."""
    origin, size = where.geometry.origin, where.geometry.voxel_size
    flat = where.spatial_shape[0] == 1
    out = []
    for point in points.tolist():
        cell = [math.floor((p - o) / s) for p, o, s in zip(point, origin, size, strict=True)][::-1]
        if flat:
            cell[0] = 0
        near = []
        for row, voxel in enumerate(where.coords.tolist()):
            steps = sum(abs(a - b) for a, b in zip(cell, voxel, strict=True))
            if steps > radius:
                continue
            square = sum(
                (Fraction(p) - Fraction(o) - (Fraction(i) + Fraction(1, 2)) * Fraction(s)) ** 2
                for p, o, s, i in zip(point, origin, size, voxel[::-1], strict=True)
            )
            near.append((steps, square, voxel, row))
        near = sorted(near)[:k]
        total = sum(math.exp(-(steps**2) / 2) for steps, *_ in near)
        out.append(
            sum(math.exp(-(steps**2) / 2) * values[row] for steps, _, _, row in near) / total
            if near
            else 0.0
        )
    return torch.tensor(out, dtype=torch.float64)


def released(points, where, values, radius, k):
    """The released code's choices: cube, first k, metres to (i + 1/2) strides, empty slots."""
    base, size = where.geometry.range_min, where.geometry.voxel_size
    rows = {tuple(voxel): row for row, voxel in enumerate(where.coords.tolist())}
    out = []
    for point in points.tolist():
        z, y, x = [math.floor((p - b) / s) for p, b, s in zip(point, base, size, strict=True)][::-1]
        if any(not 0 <= c < n for c, n in zip((z, y, x), where.spatial_shape, strict=True)):
            out.append(0.0)
            continue
        span = range(-radius, radius + 1)
        slots = []
        for voxel in [(z + a, y + b, x + c) for a in span for b in span for c in span]:
            if voxel in rows and len(slots) < k:
                square = sum(
                    (p - b - (i + 0.5) * s) ** 2
                    for p, b, s, i in zip(point, base, size, voxel[::-1], strict=True)
                )
                slots.append((math.exp(-square / 2), values[rows[voxel]]))
        slots += [(math.exp(-0.5), 0.0)] * (k - len(slots))
        out.append(sum(w * v for w, v in slots) / sum(w for w, _ in slots))
    return torch.tensor(out, dtype=torch.float64)


def values_for(where, seed=0):
    generator = torch.Generator().manual_seed(seed + 200)
    return torch.rand(len(where.coords), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(('radius', 'k'), [(2, 16), (2, 5), (1, 4), (0, 1), (3, 64), (2, 1)])
@pytest.mark.parametrize('lattice', [None, 1, 2, 8], ids=['free', 'corners', 'halves', 'eighths'])
def test_equations_by_brute_force(seed, radius, k, lattice):
    """Sparse to crowded; lattice points tie by distance in many ways."""
    share = (0.05, 0.2, 0.4, 0.7, 0.95, 1.0)[seed]
    where = random_layer(seed, (4, 5, 6), share)
    points, values = random_points(seed, 25, where, lattice), values_for(where, seed)
    out = find_neighbours(points, where, radius, k).apply(values)
    torch.testing.assert_close(out, brute_force(points, where, values, radius, k))


@pytest.mark.parametrize('seed', range(4))
def test_equations_with_a_geometry_that_is_not_binary(seed):
    where = random_layer(seed, (6, 7, 8), (0.1, 0.3, 0.6, 0.9)[seed], METRIC)
    points, values = random_points(seed, 40, where), values_for(where, seed)
    out = find_neighbours(points, where).apply(values)
    torch.testing.assert_close(out, brute_force(points, where, values, 2, 16))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(('radius', 'k'), [(2, 16), (1, 40), (2, 3)])
def test_released_code_by_brute_force(seed, radius, k):
    where = random_layer(seed, (5, 6, 7), (0.03, 0.2, 0.6, 1.0)[seed], METRIC)
    points, values = random_points(seed, 40, where), values_for(where, seed)
    out = find_neighbours(points, where, radius, k, 'reference').apply(values)
    torch.testing.assert_close(out, released(points, where, values, radius, k))


def by_distance(points, where, values, radius, bandwidth):
    """``'gaussian'`` with room for all neighbours."""
    origin, size = where.geometry.origin, where.geometry.voxel_size
    flat = where.spatial_shape[0] == 1
    out = []
    for point in points.tolist():
        places = [(p - o) / s for p, o, s in zip(point, origin, size, strict=True)][::-1]
        cell = [0 if flat and i == 0 else math.floor(place) for i, place in enumerate(places)]
        total = weights = 0.0
        for value, voxel in zip(values.tolist(), where.coords.tolist(), strict=True):
            if sum(abs(a - b) for a, b in zip(cell, voxel, strict=True)) <= radius:
                axes = list(zip(places, voxel, strict=True))[1 if flat else 0 :]
                square = sum((place - i - 0.5) ** 2 for place, i in axes)
                weight = math.exp(-square / (2 * bandwidth**2))
                total, weights = total + weight * value, weights + weight
        out.append(total / weights if weights else 0.0)
    return torch.tensor(out, dtype=torch.float64)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('shape', [(5, 6, 7), (1, 8, 9)], ids=['volume', 'flat'])
@pytest.mark.parametrize('bandwidth', [0.3, 1.0])
def test_gaussian_by_brute_force(seed, shape, bandwidth):
    where = random_layer(seed, shape, (0.05, 0.3, 0.6, 1.0)[seed], METRIC)
    points, values = random_points(seed, 40, where), values_for(where, seed)
    table = find_neighbours(points, where, 2, 64, 'gaussian', bandwidth)
    expected = by_distance(points, where, values, 2, bandwidth)
    torch.testing.assert_close(table.apply(values), expected)
    assert expected.count_nonzero() > 5


def test_gaussian_takes_the_neighbours_of_the_equations():
    where = random_layer(3, (5, 6, 7), 0.9, METRIC)
    points = random_points(3, 40, where)
    plain, gaussian = (find_neighbours(points, where, 2, 5, m) for m in ('manhattan', 'gaussian'))
    assert torch.equal(plain.index, gaussian.index)
    assert torch.equal(plain.weight > 0, gaussian.weight > 0)


def test_a_narrow_gaussian_takes_the_nearest_centre():
    """Not 0 / 0 where all centres are far away."""
    where = layer([[0, 0, 0], [0, 0, 3]], (1, 1, 4), METRIC)
    low = torch.tensor(METRIC.origin, dtype=torch.float64)
    point = (low + torch.tensor([1.9, 0.5, 0.5]) * torch.tensor(METRIC.voxel_size))[None]
    values = torch.tensor([2.0, 5.0], dtype=torch.float64)
    assert find_neighbours(point, where, 2, 16, 'gaussian', 1e-3).apply(values).item() == 2
    right = point + torch.tensor([0.2 * METRIC.voxel_size[0], 0, 0])
    assert find_neighbours(right, where, 2, 16, 'gaussian', 1e-3).apply(values).item() == 5


@pytest.mark.parametrize('bandwidth', [0.0, -1.0, float('nan')])
def test_a_bandwidth_is_positive(bandwidth):
    where = random_layer(0, (3, 3, 3), 0.5)
    with pytest.raises(InputError, match='Expected a bandwidth > 0'):
        find_neighbours(random_points(0, 9, where), where, mode='gaussian', bandwidth=bandwidth)


@pytest.mark.parametrize('seed', range(3))
def test_birds_eye_view_has_a_flat_ball_and_no_height(seed):
    where = random_layer(seed, (1, 9, 9), (0.2, 0.6, 1.0)[seed])
    points, values = random_points(seed, 40, where, 4), values_for(where, seed)
    points[:, 2] *= 50
    out = find_neighbours(points, where, 3, 12).apply(values)
    torch.testing.assert_close(out, brute_force(points, where, values, 3, 12))
    assert out.count_nonzero() > 20


def test_a_case_by_hand():
    """Voxels at x = 0, 1 and 3 of one row; the point is in cell 1, right of its centre."""
    where = layer([[0, 0, 0], [0, 0, 1], [0, 0, 3]], (2, 2, 8))
    x = where.geometry.origin[0] + 1.75 * where.geometry.voxel_size[0]
    point = torch.tensor([[x, where.geometry.origin[1] + 0.1, where.geometry.origin[2] + 0.1]])
    values = torch.tensor([1.0, 10.0, 100.0])
    e1, e4 = math.exp(-0.5), math.exp(-2.0)
    for radius, k, expected in [
        (0, 16, 10),
        (1, 16, (10 + e1) / (1 + e1)),
        (2, 16, (10 + e1 + 100 * e4) / (1 + e1 + e4)),
        (2, 2, (10 + e1) / (1 + e1)),
        (2, 1, 10),
    ]:
        out = find_neighbours(point, where, radius, k).apply(values)
        torch.testing.assert_close(out, torch.tensor([float(expected)]))


def test_ties_go_to_the_nearer_centre_then_to_the_smaller_index():
    where = layer([[1, 1, 2], [1, 1, 0], [1, 2, 1], [1, 0, 1]], (3, 3, 3))
    middle = where.geometry.centers(torch.tensor([[1, 1, 1]]), torch.float64)
    right = middle + torch.tensor([[0.01, 0.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    pick = find_neighbours(torch.cat([middle, right]), where, 1, 1).apply(values)
    assert pick.tolist() == [8.0, 1.0]


def test_a_constant_map_stays_constant_with_any_neighbour():
    """No empty slot is in the denominator."""
    where = random_layer(3, (4, 5, 6), 0.15)
    points = random_points(3, 200, where)
    out = find_neighbours(points, where).apply(torch.ones(len(where.coords), dtype=torch.float64))
    assert set(out.round(decimals=12).tolist()) == {0.0, 1.0}


def test_the_released_code_dims_points_with_few_neighbours():
    where = layer([[2, 2, 2]], (5, 5, 5))
    center = where.geometry.naive().centers(where.coords, torch.float64)
    out = find_neighbours(center, where, mode='reference').apply(torch.ones(1))
    assert out.item() == pytest.approx(1 / (1 + 15 * math.exp(-0.5)))


def test_the_two_modes_take_their_own_voxel_centres():
    """1.5 fine voxels apart at stride 4: the point is in voxel 1 by ours, in voxel 0 by theirs."""
    where = layer([[0, 0, 0], [0, 0, 1]], (1, 1, 2), METRIC)
    x = METRIC.range_min[0] + 3 * METRIC.base_voxel_size[0]
    point = torch.tensor([[x, METRIC.range_min[1] + 0.01, 0.0]], dtype=torch.float64)
    values = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert find_neighbours(point, where, 0, 1).apply(values).item() == 1
    assert find_neighbours(point, where, 0, 1, 'reference').apply(values).item() == 0


@pytest.mark.parametrize('mode', upsampling.MODES)
def test_many_maps_are_single_maps(mode, monkeypatch):
    """Also when maps and points come in several chunks, the last one partial."""
    where = random_layer(1, (4, 5, 6), 0.5)
    points = random_points(1, 50, where)
    maps = torch.rand(3, 7, len(where.coords), generator=torch.Generator().manual_seed(0))
    whole = find_neighbours(points, where, mode=mode).apply(maps)
    assert whole.shape == (3, 7, 50)
    monkeypatch.setattr(upsampling, 'SEARCH_CHUNK', 16)
    monkeypatch.setattr(upsampling, 'GATHER_CHUNK', 200)
    table = find_neighbours(points, where, mode=mode)
    assert torch.equal(table.apply(maps), whole)
    for i in range(3):
        for j in range(7):
            assert torch.equal(table.apply(maps[i, j]), whole[i, j])


@pytest.mark.parametrize('mode', upsampling.MODES)
def test_order_of_points_and_voxels_does_not_matter(mode):
    where = random_layer(2, (4, 5, 6), 0.7)
    points, values = random_points(2, 60, where, 2), values_for(where)
    out = find_neighbours(points, where, mode=mode).apply(values)
    p = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    v = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    other = layer(where.coords[v], where.spatial_shape)
    assert torch.equal(find_neighbours(points[p], other, mode=mode).apply(values[v]), out[p])


@pytest.mark.parametrize('mode', upsampling.MODES)
def test_nothing_to_search(mode):
    where, nowhere = random_layer(0, (3, 3, 3), 0.5), layer([], (3, 3, 3))
    points = random_points(0, 9, where)
    table = find_neighbours(points[:0], where, mode=mode)
    assert table.apply(torch.ones(2, len(where.coords))).shape == (2, 0)
    table = find_neighbours(points, nowhere, mode=mode)
    assert torch.equal(table.apply(torch.ones(2, 0)), torch.zeros(2, 9))
    table = find_neighbours(points, where, mode=mode)
    assert table.apply(torch.ones(0, len(where.coords))).shape == (0, 9)


@pytest.mark.parametrize('mode', upsampling.MODES)
def test_far_away_points_have_no_neighbours(mode):
    """Not even by an integer that wraps around."""
    where = random_layer(0, (3, 3, 3), 1.0)
    points = 10.0 ** torch.arange(1, 38)[:, None] * torch.tensor([[1.0, -1.0, 1.0]])
    out = find_neighbours(torch.cat([points, -points]), where, mode=mode).apply(torch.ones(27))
    assert not out.any()


def test_only_coordinates_are_read_and_int32_is_taken():
    where = random_layer(4, (3, 4, 5), 0.5)
    points = random_points(4, 20, where)
    extra = torch.cat([points, torch.full((20, 2), float('nan'))], dim=1)
    narrow = LayerFeatures(
        where.values, where.coords.int(), where.spatial_shape, where.geometry, where.name
    )
    values = values_for(where)
    expected = find_neighbours(points, where).apply(values)
    assert torch.equal(find_neighbours(extra, narrow).apply(values), expected)


def test_single_precision_maps_stay_single():
    where = random_layer(4, (3, 4, 5), 0.5)
    table = find_neighbours(random_points(4, 20, where).float(), where)
    assert table.apply(values_for(where).float()).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('lattice', [None, 2], ids=['free', 'halves'])
def test_a_gpu_finds_the_same_neighbours_to_the_bit(lattice):
    where = random_layer(3, (4, 5, 6), 0.7)
    points, values = random_points(3, 60, where, lattice).float(), values_for(where).float()
    there = LayerFeatures(
        where.values.cuda(), where.coords.cuda(), where.spatial_shape, where.geometry, where.name
    )
    found, expected = find_neighbours(points.cuda(), there), find_neighbours(points, where)
    assert torch.equal(found.index.cpu(), expected.index)
    assert torch.equal(found.weight.cpu(), expected.weight)
    torch.testing.assert_close(found.apply(values.cuda()).cpu(), expected.apply(values))


GRID = random_layer(0, (3, 4, 5), 0.5)
POINTS = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ('points', 'where', 'options', 'match'),
    [
        (torch.full((2, 4), float('nan')), GRID, {}, 'point coordinate, received 6 of 6 values'),
        (torch.full((2, 3), float('inf')), GRID, {}, 'NaN or infinite'),
        (torch.zeros(4, 2), GRID, {}, r'shape \(N, 3 or more\), received \(4, 2\)'),
        (torch.zeros(4), GRID, {}, r'received \(4,\)'),
        (POINTS, layer([[0, 0, 1], [0, 0, 1]], (3, 4, 5)), {}, 'every voxel once'),
        (POINTS, layer([[0, 0, 5]], (3, 4, 5)), {}, r'inside the grid \(3, 4, 5\)'),
        (POINTS, layer([[-1, 0, 0]], (3, 4, 5)), {}, 'check the order of the axes'),
        (POINTS, GRID, {'radius': -1}, 'radius >= 0 and k >= 1, received -1 and 16'),
        (POINTS, GRID, {'k': 0}, 'received 2 and 0'),
    ],
)
def test_what_cannot_be_searched_is_refused(points, where, options, match):
    with pytest.raises(InputError, match=match):
        find_neighbours(points, where, **options)


def test_batched_coordinates_are_refused():
    batched = LayerFeatures(torch.zeros(1, 2), torch.zeros(1, 4).long(), (3, 4, 5), BINARY)
    with pytest.raises(InputError, match=r'z, y, x of shape \(M, 3\), received \(1, 4\)'):
        find_neighbours(POINTS, batched)


def test_unknown_mode():
    with pytest.raises(UnknownNameError, match=r"Unknown upsampling 'cube': expected one of"):
        find_neighbours(POINTS, GRID, mode='cube')
