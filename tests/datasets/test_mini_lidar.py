"""The spinning LiDAR: beams, geometry, noise, losses."""

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.datasets.mini.ground import Ground, Road  # noqa: E402
from explain3d.datasets.mini.lidar import Lidar, hdl64e_elevations  # noqa: E402
from explain3d.datasets.mini.materials import LIDAR_LOSS, REFLECTIVITY, Material  # noqa: E402
from explain3d.datasets.mini.mesh import box  # noqa: E402
from explain3d.datasets.mini.scene import Actor, Motion, Pose, Scene  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

HEIGHT = 1.73
UP = np.array([0.0, 0.0, 1.0])


def flat_scene(actors=(), ego=None):
    """A flat plane without kerbs, in one material."""
    plane = box((400, 400, 1), (0, 0, -0.5), Material.WALL, (0.5, 0.5, 0.5))
    return Scene(Ground(Road(kerb=0.0)), plane, list(actors), ego or Motion(0, 0, 0), UP)


def scan(scene, seed=0, **settings):
    snapshot = scene.at(0.0)
    lidar = Lidar(Pose(np.eye(3), np.array([0, 0, HEIGHT])), **settings)
    return lidar.scan(Tracer(snapshot.mesh), snapshot, np.random.default_rng(seed))


def test_the_beam_table_is_the_hdl64es():
    degrees = np.rad2deg(hdl64e_elevations())
    assert len(degrees) == 64
    assert degrees[0] == pytest.approx(2.0)
    assert degrees[31] == pytest.approx(2 - 31 / 3)
    assert degrees[63] == pytest.approx(-24.8)
    np.testing.assert_allclose(np.diff(degrees[:32]), -1 / 3)
    np.testing.assert_allclose(np.diff(degrees[32:]), -0.5)
    assert (np.diff(degrees) < 0).all()


def test_directions_are_unit_and_cover_the_circle_once():
    lidar = Lidar(Pose.identity(), columns=360)
    direction = lidar.directions()
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1)
    azimuth = np.sort(np.arctan2(direction[:360, 1], direction[:360, 0]))
    np.testing.assert_allclose(np.diff(azimuth), 2 * np.pi / 360, atol=1e-9)


def test_on_a_plane_every_ring_has_the_radius_of_its_beam():
    sweep = scan(flat_scene(), noise=0.0, columns=500)
    xyz = sweep.points[:, :3]
    np.testing.assert_allclose(xyz[:, 2], -HEIGHT, atol=2e-4)
    expected = HEIGHT / np.tan(-hdl64e_elevations()[sweep.beam])
    np.testing.assert_allclose(np.hypot(xyz[:, 0], xyz[:, 1]), expected, rtol=1e-3)
    assert np.linalg.norm(xyz, axis=1).max() < 100


def test_noise_lies_along_the_ray_and_has_its_spread():
    exact, noisy = (scan(flat_scene(), noise=s, columns=500).points for s in (0.0, 0.05))
    # The same seed loses the same rays.
    assert len(exact) == len(noisy)
    shift = np.linalg.norm(noisy[:, :3], axis=1) - np.linalg.norm(exact[:, :3], axis=1)
    assert np.std(shift) == pytest.approx(0.05, rel=0.05)
    assert abs(np.mean(shift)) < 0.002
    away = np.cross(noisy[:, :3], exact[:, :3]) / np.linalg.norm(exact[:, :3], axis=1)[:, None]
    assert np.abs(away).max() < 1e-3


def test_losses_grow_with_range_and_incidence_and_start_at_the_materials_own():
    lidar = Lidar(Pose.identity())
    distance, cosine = np.linspace(2, 100, 50), np.linspace(0, 1, 50)
    material = np.full(50, Material.ASPHALT)
    far = lidar._loss(material, distance, np.full(50, 0.5))
    grazing = lidar._loss(material, np.full(50, 30.0), cosine)
    assert (np.diff(far) > 0).all()
    assert (np.diff(grazing) < 0).all()
    assert far.min() >= 0
    assert far.max() <= 1
    near = lidar._loss(np.arange(len(Material)), np.zeros(len(Material)), np.ones(len(Material)))
    np.testing.assert_allclose(near, LIDAR_LOSS, atol=1e-12)
    # The documented half-way point.
    half = lidar._loss(np.array([Material.TYRE]), np.array([80.0]), np.array([1.0]))[0]
    weak = REFLECTIVITY[Material.TYRE]
    kept = (1 - LIDAR_LOSS[Material.TYRE]) * weak / (weak + 0.08)
    assert half == pytest.approx(1 - kept)


def test_hits_carry_their_object_and_lie_on_it():
    body = box((4, 2, 1.5), (0, 0, 0.75), Material.PAINT, (0.5, 0.5, 0.5))
    actors = [
        Actor('Car', Motion(12, 3, 0.6), lambda t: body),
        Actor('Van', Motion(-9, -4, -2.0), lambda t: body),
    ]
    # An ego vehicle that stands elsewhere and turned: points are in its sensor's frame.
    scene = flat_scene(actors, Motion(1.0, -2.0, 0.3))
    sweep = scan(scene, noise=0.0, columns=1000)
    snapshot = scene.at(0.0)
    frame = snapshot.ego.compose(Pose(np.eye(3), np.array([0, 0, HEIGHT])))
    for index, state in enumerate(snapshot.objects):
        points = sweep.points[sweep.object_index == index, :3]
        assert len(points) > 50
        local = state.pose.invert(frame.apply(points.astype(float)))
        face_gap = np.abs(local - [0, 0, 0.75]) - np.array([2, 1, 0.75])
        np.testing.assert_allclose(face_gap.max(1), 0, atol=1e-4)
    others = sweep.points[sweep.object_index < 0]
    np.testing.assert_allclose(others[:, 2], -HEIGHT, atol=1e-4)


def test_intensity_is_kittis_range_and_plates_shine():
    def plate(material):
        body = box((0.2, 4, 4), (0, 0, 2), material, (0.5, 0.5, 0.5))
        sweep = scan(flat_scene([Actor('Car', Motion(8, 0, 0), lambda t: body)]), columns=500)
        return sweep.points[sweep.object_index == 0, 3]

    shiny, dull = plate(Material.PLATE), plate(Material.TYRE)
    both = np.concatenate([shiny, dull])
    assert both.min() >= 0
    assert both.max() < 1
    np.testing.assert_allclose(both * 100, np.round(both * 100), atol=1e-4)
    assert np.median(shiny) > 0.8
    assert np.median(dull) < 0.15


def test_noise_elsewhere_does_not_depend_on_one_object():
    body = box((4, 2, 1.5), (0, 0, 0.75), Material.PAINT, (0.5, 0.5, 0.5))
    without = scan(flat_scene(), columns=500).points
    with_car = scan(
        flat_scene([Actor('Car', Motion(10, 0, 0), lambda t: body)]), columns=500
    ).points
    behind = {tuple(p) for p in without if p[0] < -1}
    assert behind == {tuple(p) for p in with_car if p[0] < -1}
