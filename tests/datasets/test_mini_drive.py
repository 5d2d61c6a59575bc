"""Drives: nothing runs into anything, all sides are full, layered casting equals plain casting."""

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.datasets.mini.drive import TimedOccupancy, random_drive  # noqa: E402
from explain3d.datasets.mini.replay import Replay  # noqa: E402
from explain3d.datasets.mini.scene import Motion  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

START, END = -0.4, 2.0


@pytest.fixture(scope='module')
def scene():
    return random_drive(np.random.default_rng(20), START, END)


@pytest.fixture(scope='module')
def replay(scene):
    return Replay(scene)


def footprint(state):
    """(4, 2) corners of an object's box on the ground."""
    half = state.size[:2] / 2
    local = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) * [*half, 0]
    return state.pose.apply(local)[:, :2]


@pytest.fixture(scope='module')
def footprints(replay):
    """Pairs of a time and the objects' outlines; between the times that the generator compares."""
    from shapely.geometry import Polygon

    times = np.arange(START + 0.1, END, 0.3)
    return [(t, [Polygon(footprint(state)) for state in replay.objects(t)]) for t in times]


def test_no_two_objects_meet_at_any_time(footprints):
    for _, shapes in footprints:
        overlaps = [a.intersection(b).area for i, a in enumerate(shapes) for b in shapes[:i]]
        # People's arms swing: by a hand's breadth beyond the footprint at time 0.
        assert max(overlaps) < 0.05


def test_the_ego_vehicle_keeps_clear(scene, footprints):
    from shapely.geometry import Polygon

    for t, shapes in footprints:
        x, y, yaw = scene.ego.at(t)
        ahead, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        body = [[3.9, 0.9], [-1.0, 0.9], [-1.0, -0.9], [3.9, -0.9]]
        car = Polygon([np.array([x, y]) + u * ahead + v * left for u, v in body])
        assert min(car.distance(shape) for shape in shapes) > 0.05


def test_there_is_traffic_on_all_sides_and_in_motion(replay, scene):
    snapshot, _ = replay.at(1.0)
    local = np.array([snapshot.ego.invert(o.pose.translation[None])[0] for o in snapshot.objects])
    vehicles = np.array([o.label in ('Car', 'Van', 'Truck', 'Bus') for o in snapshot.objects])
    near = vehicles & (np.hypot(local[:, 0], local[:, 1]) < 50)
    assert near.sum() >= 6
    for sign in (1, -1):
        assert (near & (sign * local[:, 0] > 3)).any()
    assert {a.motion.speed > 0 for a in scene.actors if a.label == 'Car'} == {True, False}
    assert any(a.parked for a in scene.actors)


def test_a_moving_thing_may_be_where_another_was_but_not_where_it_is():
    taken = TimedOccupancy(np.arange(0, 4, 0.2))
    leader, follower = Motion(0, 0, 0, 5.0), Motion(-8, 0, 0, 5.0)
    assert taken.try_follow(leader, 4, 2, 0.3)
    assert taken.try_follow(follower, 4, 2, 0.3)
    # Faster than the one in front, oncoming in the same lane, standing in the way.
    assert not taken.try_follow(Motion(-16, 0, 0, 9.0), 4, 2, 0.3)
    assert not taken.try_follow(Motion(30, 0, np.pi, 5.0), 4, 2, 0.3)
    assert not taken.try_take(14, 0, 0, 1, 1)
    assert taken.try_take(14, 3, 0, 1, 1)


def test_two_layers_are_cast_against_as_one(scene, replay):
    snapshot, tracer = replay.at(0.7)
    plain = scene.at(0.7)
    reference = Tracer(plain.mesh)
    assert len(plain.mesh.faces) == len(snapshot.mesh.faces)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(5000, 3)) * [1, 1, 0.1]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    origin = snapshot.ego.translation + [0, 0, 1.5]
    got, wanted = tracer.cast(origin, direction), reference.cast(origin, direction)
    met = wanted.face >= 0
    np.testing.assert_array_equal(got.face >= 0, met)
    np.testing.assert_allclose(got.distance[met], wanted.distance[met], rtol=1e-5)
    owner = snapshot.face_object[got.face[met]]
    np.testing.assert_array_equal(owner, plain.face_object[wanted.face[met]])
    assert len(np.unique(owner)) > 4
    moving = [i for i, actor in enumerate(scene.actors) if actor.motion.speed > 0]
    assert np.isin(owner, moving).any()
    np.testing.assert_array_equal(
        tracer.occluded(origin, direction), reference.occluded(origin, direction)
    )
    np.testing.assert_allclose(
        np.abs((tracer.normal[got.face[met]] * direction[met]).sum(1)),
        np.abs((reference.normal[wanted.face[met]] * direction[met]).sum(1)),
        atol=1e-9,
    )


def test_the_snapshot_is_the_scene_at_that_time(scene, replay):
    snapshot, _ = replay.at(1.3)
    plain = scene.at(1.3)
    for got, wanted in zip(snapshot.objects, plain.objects, strict=True):
        assert got.label == wanted.label
        np.testing.assert_array_equal(got.pose.translation, wanted.pose.translation)
        np.testing.assert_array_equal(got.pose.rotation, wanted.pose.rotation)
        np.testing.assert_array_equal(got.velocity, wanted.velocity)
    np.testing.assert_array_equal(snapshot.ego.translation, plain.ego.translation)
