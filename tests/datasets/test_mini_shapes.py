"""Meshes of the mini world and the ray caster, against closed forms and brute force."""

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.datasets.mini import mesh as m  # noqa: E402
from explain3d.datasets.mini import street_objects, vehicles  # noqa: E402
from explain3d.datasets.mini.materials import DIFFUSE, LIDAR_LOSS, REFLECTIVITY, Material  # noqa: E402
from explain3d.datasets.mini.people import Cyclist, Pedestrian  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

GREY = (0.5, 0.5, 0.5)


def area(mesh):
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2


def open_edges(mesh):
    """Number of edges that do not belong to exactly two faces."""
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] != 2).sum())


def brute_force(mesh, origin, direction):
    """Distance to the first face on each ray, Moeller-Trumbore in float64."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    first = np.full(len(direction), np.inf)
    for i, d in enumerate(direction):
        p = np.cross(d, c - a)
        det = ((b - a) * p).sum(1)
        with np.errstate(divide='ignore', invalid='ignore'):
            s = origin - a
            u = (s * p).sum(1) / det
            q = np.cross(s, b - a)
            v = (q @ d) / det
            t = ((c - a) * q).sum(1) / det
        hit = (np.abs(det) > 1e-14) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-9)
        if hit.any():
            first[i] = t[hit].min()
    return first


def test_primitives_are_closed_and_have_the_area_of_their_solid():
    box = m.box((2, 3, 4), (1, 1, 1), Material.WALL, GREY)
    tube = m.limb((0, 0, 0), (0, 0, 2), 0.5, 0.5, Material.METAL, GREY, sides=64)
    ball = m.ellipsoid((0, 0, 0), (1, 1, 1), Material.LEAF, GREY, detail=40)
    assert [open_edges(x) for x in (box, tube, ball)] == [0, 0, 0]
    assert area(box) == pytest.approx(2 * (6 + 8 + 12))
    # A polygon of n sides has n sin(pi / n) / pi of the circle's circumference.
    assert area(tube) == pytest.approx(2 * 64 * np.sin(np.pi / 64) + np.pi / 2, rel=2e-3)
    assert area(ball) == pytest.approx(4 * np.pi, rel=5e-3)


@pytest.mark.parametrize('style', [*vehicles.CAR_STYLES, 'van'])
def test_a_car_is_closed_grounded_and_of_a_real_cars_size(style):
    for seed in range(5):
        car = vehicles.car(np.random.default_rng(seed), style)
        low, high = car.vertices.min(0), car.vertices.max(0)
        np.testing.assert_allclose([*(low + high)[:2], low[2]], 0, atol=1e-12)
        assert open_edges(car) == 0
        length, width, height = car.extent
        limits = ((4.2, 5.7), (1.7, 2.1), (1.8, 2.5)) if style == 'van' else (
            (3.1, 4.8), (1.45, 1.9), (1.3, 1.9)
        )  # fmt: skip
        for value, (lowest, highest) in zip((length, width, height), limits, strict=True):
            assert lowest < value < highest
        assert {Material.GLASS, Material.TYRE, Material.PLATE, Material.LAMP} <= set(car.material)


def test_a_cars_roof_is_over_its_middle_and_its_bonnet_in_front():
    car = vehicles.car(np.random.default_rng(0), 'sedan')
    length, _, height = car.extent
    tracer = Tracer(car)
    top = [5 - tracer.cast(np.array([x, 0, 5.0]), np.array([[0, 0, -1.0]])).distance[0]
           for x in (0.4 * length, 0.0)]  # fmt: skip
    assert 0.4 * height < top[0] < 0.7 * height
    assert top[1] > 0.95 * height


def test_people_have_the_size_of_people_at_every_phase():
    sizes = {'Pedestrian': [], 'Cyclist': []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        for body in (Pedestrian(rng, walking=True), Cyclist(rng)):
            for phase in (0.0, 1.0, 2.5, 4.0):
                mesh = body.mesh(phase)
                assert abs(mesh.vertices[:, 2].min()) < 1e-12
                sizes[type(body).__name__].append(mesh.extent)
    walker, rider = np.mean(sizes['Pedestrian'], 0), np.mean(sizes['Cyclist'], 0)
    np.testing.assert_allclose(walker, (0.75, 0.6, 1.73), atol=0.15)
    np.testing.assert_allclose(rider, (1.76, 0.7, 1.75), atol=0.1)


def test_the_gait_repeats_and_its_legs_move():
    body = Pedestrian(np.random.default_rng(3), walking=True)
    start, half, full = (body.mesh(p).vertices for p in (1.0, 1.0 + np.pi, 1.0 + 2 * np.pi))
    np.testing.assert_allclose(full, start, atol=1e-9)
    assert np.abs(half - start).max() > 0.3


@pytest.mark.parametrize(
    'make',
    [
        vehicles.truck, street_objects.tree, street_objects.bush, street_objects.hedge,
        street_objects.lamp_post, street_objects.bollard, street_objects.sign,
        street_objects.bin_, street_objects.mailbox, street_objects.advertising_column,
        lambda rng: street_objects.fence(rng, 5.0), lambda rng: street_objects.wall(rng, 5.0),
        lambda rng: street_objects.house(rng, 9.0, 8.0),
    ],
)  # fmt: skip
def test_every_other_shape_is_finite_closed_and_drawn_from_its_generator(make):
    mesh, again, other = (make(np.random.default_rng(s)) for s in (7, 7, 8))
    assert np.isfinite(mesh.vertices).all()
    assert open_edges(mesh) == 0
    np.testing.assert_array_equal(mesh.vertices, again.vertices)
    assert mesh.vertices.shape != other.vertices.shape or (mesh.vertices != other.vertices).any()


def test_every_material_has_its_figures():
    for table in (REFLECTIVITY, DIFFUSE, LIDAR_LOSS):
        assert len(table) == len(Material)
        assert ((table >= 0) & (table <= 1)).all()


def test_the_tracer_finds_what_brute_force_finds():
    car = vehicles.car(np.random.default_rng(1), 'hatchback')
    rng = np.random.default_rng(0)
    origin = np.array([-6.0, 2.0, 1.7])
    target = rng.uniform([-2.5, -1.2, -0.2], [2.5, 1.2, 1.8], (300, 3))
    direction = target - origin
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    expected = brute_force(car, origin, direction)
    found = Tracer(car).cast(origin, direction)
    # Rays that graze a silhouette may go either way in single precision.
    agree = np.isfinite(expected) == np.isfinite(found.distance)
    assert agree.mean() > 0.99
    both = np.isfinite(expected) & np.isfinite(found.distance)
    assert both.sum() > 100
    assert np.percentile(np.abs(expected[both] - found.distance[both]), 99) < 1e-4
    np.testing.assert_array_equal(found.face >= 0, np.isfinite(found.distance))


def test_normals_face_the_ray():
    box = m.box((2, 2, 2), (0, 0, 0), Material.WALL, GREY)
    tracer, direction = Tracer(box), np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    for row, origin in zip(direction, ([-5.0, 0.1, 0.2], [5.0, 0.1, 0.2]), strict=True):
        hit = tracer.cast(np.array(origin), row[None])
        assert hit.distance[0] == pytest.approx(4.0, abs=1e-5)
        np.testing.assert_allclose(tracer.facing(hit.face, row[None])[0], -row, atol=1e-12)
