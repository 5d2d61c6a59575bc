"""Ground, poses, motion and the random street."""

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.datasets.mini.ground import Ground, Road  # noqa: E402
from explain3d.datasets.mini.materials import Material  # noqa: E402
from explain3d.datasets.mini.mesh import box  # noqa: E402
from explain3d.datasets.mini.scene import STATIC, Actor, Motion, Pose, Scene, rest_pose  # noqa: E402
from explain3d.datasets.mini.street import random_street  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

UP = np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope='module', params=[0, 1, 2])
def street(request):
    return random_street(np.random.default_rng(request.param))


def inside(points, x, y, yaw, length, width):
    """Which points (N, 2) lie in a rectangle."""
    c, s = np.cos(yaw), np.sin(yaw)
    local = (points - [x, y]) @ np.array([[c, -s], [s, c]])
    return (np.abs(local) <= [length / 2, width / 2]).all(1)


def test_the_kerb_is_a_step_at_the_roads_edges():
    road = Road(kerb=0.12)
    ground, (right, left) = Ground(road), road.edges
    np.testing.assert_allclose(ground.height(3.0, [right + 0.1, 0.0, left - 0.1]), 0)
    np.testing.assert_allclose(ground.height(3.0, [right - 0.1, left + 0.1]), 0.12)


def test_a_crossing_street_has_no_kerb():
    road = Road(crossing=20.0, crossing_half=4.0, kerb=0.1)
    ground = Ground(road)
    beyond = road.edges[1] + 5
    np.testing.assert_allclose(ground.height([10.0, 17.0, 20.0, 30.0], beyond), [0.1, 0, 0, 0.1])


def test_the_ground_mesh_follows_the_height_field(street):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-15, 55, 400), rng.uniform(-12, 12, 400)
    tracer = Tracer(street.ground.mesh(rng))
    origin = np.stack([x, y, np.full(400, 20.0)], -1)
    height = 20 - tracer.cast(origin, np.tile(-UP, (400, 1))).distance
    error = np.abs(height - street.ground.height(x, y))
    # The grid's cells cut corners of mounds only.
    assert np.median(error) < 1e-3
    assert np.percentile(error, 95) < 0.03


def test_slopes_within_fifty_metres_keep_objects_in_the_detectors_range():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        road = Road.random(rng)
        ground = Ground.random(road, rng)
        x = np.linspace(0, 51, 103)
        rise = ground.height(x, road.centre(x)) - ground.height(0.0, 0.0)
        assert np.abs(rise).max() < 1.3


@pytest.mark.parametrize('turn_rate', [0.0, 0.3, -0.5])
def test_motion_agrees_with_small_steps(turn_rate):
    motion = Motion(1.0, 2.0, 0.4, speed=6.0, turn_rate=turn_rate)
    x, y, yaw = 1.0, 2.0, 0.4
    step = 1e-4
    for _ in range(20000):
        # Midpoint rule.
        middle = yaw + turn_rate * step / 2
        x += 6.0 * np.cos(middle) * step
        y += 6.0 * np.sin(middle) * step
        yaw += turn_rate * step
    np.testing.assert_allclose(motion.at(2.0), (x, y, yaw), atol=1e-6)


def test_poses_invert_and_compose():
    ground = Ground(Road(), slope=np.array([0.05, 0.03]))
    outer = rest_pose(ground, 3.0, 1.0, 0.7, (4.0, 1.7), upright=False)
    inner = Pose(outer.rotation.T, np.array([0.5, -1.0, 2.0]))
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(outer.invert(outer.apply(points)), points, atol=1e-12)
    np.testing.assert_allclose(
        outer.compose(inner).apply(points), outer.apply(inner.apply(points)), atol=1e-12
    )


def test_vehicles_follow_the_slope_and_people_stand_upright():
    ground = Ground(Road(parking=(0.0, 0.0)), slope=np.array([0.06, -0.02]))
    normal = np.array([-0.06, 0.02, 1.0]) / np.linalg.norm([-0.06, 0.02, 1.0])
    tilted = rest_pose(ground, 5.0, 0.5, 0.9, (4.0, 1.7), upright=False)
    np.testing.assert_allclose(tilted.rotation[:, 2], normal, atol=1e-12)
    np.testing.assert_allclose(tilted.rotation.T @ tilted.rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(tilted.rotation) == pytest.approx(1)
    np.testing.assert_allclose(rest_pose(ground, 5, 0.5, 0.9, (1, 1), True).rotation[:, 2], UP)
    assert tilted.translation[2] == pytest.approx(0.06 * 5 - 0.02 * 0.5)


def test_objects_stand_on_the_ground(street):
    for state in street.at(0.0).objects:
        x, y, z = state.pose.translation
        height = street.ground.height(*street_footprint(state))
        assert height.min() - 0.05 <= z <= height.max() + 0.05
        np.testing.assert_allclose([x, y], street_footprint(state).mean(1), atol=0.05)


def street_footprint(state):
    """(2, 4) the corners on the plane."""
    half = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * state.size[:2] / 2
    return (half @ state.pose.rotation[:2, :2].T + state.pose.translation[:2]).T


def test_no_two_objects_overlap_nor_stand_in_the_ego_vehicle():
    steps = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 9)] * 2), -1).reshape(-1, 2)
    for seed in range(6):
        scene = random_street(np.random.default_rng(seed))
        rects = [(scene.ego.x, scene.ego.y, scene.ego.yaw, 4.2, 1.8)]
        for actor in scene.actors:
            length, width, _ = actor.shape(0.0).extent
            rects.append((actor.motion.x, actor.motion.y, actor.motion.yaw, length, width))
        points = []
        for x, y, yaw, length, width in rects:
            c, s = np.cos(yaw), np.sin(yaw)
            points.append((steps * [length, width]) @ np.array([[c, s], [-s, c]]) + [x, y])
        owner = np.repeat(np.arange(len(rects)), len(steps))
        points = np.concatenate(points)
        for index, rect in enumerate(rects):
            assert set(owner[inside(points, *rect)]) == {index}


def test_the_same_generator_gives_the_same_street():
    first, second, other = (random_street(np.random.default_rng(s)).at(0.0) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.mesh.vertices, second.mesh.vertices)
    np.testing.assert_array_equal(first.face_object, second.face_object)
    assert len(first.mesh.vertices) != len(other.mesh.vertices)


def test_every_face_knows_its_object(street):
    snapshot = street.at(0.0)
    assert len(snapshot.face_object) == len(snapshot.mesh.faces)
    assert snapshot.face_object.min() == STATIC
    for index, state in enumerate(snapshot.objects):
        faces = snapshot.mesh.faces[snapshot.face_object == index]
        vertices = np.unique(faces)
        np.testing.assert_array_equal(snapshot.mesh.vertices[vertices], state.mesh.vertices)


def test_time_moves_actors_and_the_ego_vehicle_but_not_the_scenery():
    body = box((4, 2, 1.5), (0, 0, 0.75), Material.PAINT, (0.5, 0.5, 0.5))
    ground = Ground(Road())
    scene = Scene(
        ground,
        ground.mesh(np.random.default_rng(0)),
        [Actor('Car', Motion(10, 0, np.pi / 2, 4.0), lambda t: body)],
        Motion(0, 0, 0, 5.0),
        UP,
    )
    before, after = scene.at(0.0), scene.at(0.5)
    np.testing.assert_allclose(after.ego.translation - before.ego.translation, [2.5, 0, 0])
    moved = after.objects[0].pose.translation - before.objects[0].pose.translation
    np.testing.assert_allclose(moved, [0, 2.0, 0], atol=1e-12)
    np.testing.assert_allclose(after.objects[0].velocity, [0, 4.0, 0], atol=1e-12)
    static = before.face_object == STATIC
    vertices = np.unique(before.mesh.faces[static])
    np.testing.assert_array_equal(before.mesh.vertices[vertices], after.mesh.vertices[vertices])
    # In the frame of the ego vehicle the car is 2.5 m nearer and 2 m further to the left.
    np.testing.assert_allclose(after.objects[0].box_in(after.ego)[:3], [7.5, 2.0, 0.75], atol=1e-9)
    assert after.objects[0].box_in(after.ego)[6] == pytest.approx(np.pi / 2)
