"""The radar against analytic values: place, Doppler, cross section, noise, fields of the file."""

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')

from explain3d.datasets.mini import nuscenes_files as files  # noqa: E402
from explain3d.datasets.mini.ground import Ground, Road  # noqa: E402
from explain3d.datasets.mini.materials import Material  # noqa: E402
from explain3d.datasets.mini.mesh import box, merge, yaw_matrix  # noqa: E402
from explain3d.datasets.mini.radar import FALSE_ALARM, Radar, RadarSweep  # noqa: E402
from explain3d.datasets.mini.scene import Actor, Motion, Pose, Scene  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

IDEAL = {'noise': (0.0, 0.0, 0.0, 0.0), 'drop_out': 0.0, 'false_alarms': 0.0}
MOUNT = Pose(yaw_matrix(0.3), np.array([3.4, 0.5, 0.6]))
METAL = box((0.4, 0.4, 2.0), (0, 0, 1.0), Material.METAL, (0.5, 0.5, 0.5))


def flat_scene(actors, ego, extra=()):
    ground = Ground(Road(kerb=0.0))
    floor = box((400, 400, 0.2), (0, 0, -0.1), Material.ASPHALT, (0.2, 0.2, 0.2))
    return Scene(ground, merge([floor, *extra]), actors, ego, np.array([0, 0, 1.0]))


def pillar(x, y, yaw=0.0, speed=0.0, mesh=METAL):
    return Actor('Car', Motion(x, y, yaw, speed), lambda t: mesh)


def measure(scene, radar, t=0.0, seed=0):
    snapshot = scene.at(t)
    own = radar.sensor_velocity(snapshot, scene.ego.speed, scene.ego.turn_rate)
    sweep = radar.scan(Tracer(snapshot.mesh), snapshot, own, np.random.default_rng(seed))
    return snapshot, sweep


def distance_at(scene, radar, point, index, t):
    """Distance at time t of the sensor from a point that goes along with an object."""
    shift = np.array(scene.actors[index].motion.at(t)) - scene.actors[index].motion.at(0.0)
    sensor = scene.at(t).ego.compose(radar.pose).translation
    return np.linalg.norm(point + [*shift[:2], 0.0] - sensor)


def test_doppler_is_the_rate_of_the_distance():
    ego = Motion(0, 0, 0.1, 7.0, 0.3)
    actors = [pillar(20, 5, 2.5, 6.0), pillar(15, -4), pillar(30, 14, -1.0, 11.0)]
    scene, radar = flat_scene(actors, ego), Radar(MOUNT, **IDEAL)
    snapshot, sweep = measure(scene, radar)
    sensor = snapshot.ego.compose(radar.pose)
    assert set(sweep.object_index) == {0, 1, 2}
    h = 1e-4
    for xy, velocity, over_ground, index in zip(
        sweep.xy, sweep.velocity, sweep.compensated, sweep.object_index, strict=True
    ):
        point = sensor.apply(np.array([[*xy, 0.0]]))[0]
        late, early = (distance_at(scene, radar, point, index, s * h) for s in (1, -1))
        # The target is the mean of a small pillar's rays, some of them not in the plane.
        assert velocity == pytest.approx((late - early) / (2 * h), abs=0.12)
        sight = sensor.rotation[:, :2] @ (xy / np.linalg.norm(xy))
        truth = snapshot.objects[index].velocity @ sight
        assert over_ground == pytest.approx(truth, abs=0.12)


def test_what_stands_has_no_velocity_over_ground():
    wall = box((1, 30, 5), (40, 0, 2.5), Material.WALL, (0.5, 0.5, 0.5))
    scene = flat_scene([pillar(20, 3)], Motion(0, 0, 0.0, 9.0, -0.2), [wall])
    _, sweep = measure(scene, Radar(MOUNT, **IDEAL))
    assert len(sweep.rcs) > 10
    np.testing.assert_allclose(sweep.compensated, 0, atol=1e-9)
    assert sweep.velocity.min() < -8


def test_a_detection_is_where_the_surface_is():
    scene, radar = flat_scene([pillar(25, 6)], Motion(0, 0, 0.0)), Radar(MOUNT, **IDEAL)
    snapshot, sweep = measure(scene, radar)
    world = snapshot.ego.compose(radar.pose).apply(np.column_stack([sweep.xy, 0 * sweep.rcs]))
    assert np.abs(world[:, :2] - [25, 6]).max() < 0.2 + 0.15
    assert (np.linalg.norm(world[:, :2] - MOUNT.translation[:2], axis=1) < 25).all()


def test_what_is_hidden_or_outside_the_view_is_not_detected():
    wall = box((0.5, 4, 3), (15, 3.5, 1.5), Material.WALL, (0.5, 0.5, 0.5))
    actors = [pillar(30, 6), pillar(-20, 0), pillar(20, -3)]
    radar = Radar(Pose(np.eye(3), np.array([3.4, 0.0, 0.6])), **IDEAL)
    _, sweep = measure(flat_scene(actors, Motion(0, 0, 0), [wall]), radar)
    assert set(sweep.object_index) == {-1, 2}
    bearing = np.arctan2(sweep.xy[:, 1], sweep.xy[:, 0])
    assert np.abs(bearing).max() < radar.half_view


def test_cross_section_grows_with_area_metal_and_square_incidence():
    def strongest(mesh, yaw=0.0):
        scene = flat_scene([pillar(20, 0, yaw, mesh=mesh)], Motion(0, 0, 0))
        radar = Radar(Pose(np.eye(3), np.array([0, 0, 0.6])), **IDEAL)
        radar.weakest = -60.0
        _, sweep = measure(scene, radar)
        return sweep.rcs[sweep.object_index == 0].max()

    def plate(side, material):
        return box((0.05, side, side), (0, 0, side / 2), material, (0.5, 0.5, 0.5))

    metal = strongest(plate(0.8, Material.METAL))
    assert metal > strongest(plate(0.4, Material.METAL)) + 3
    assert metal > strongest(plate(0.8, Material.CLOTH)) + 10
    assert metal > strongest(plate(0.8, Material.METAL), yaw=0.8) + 3


def test_noise_and_false_alarms_have_their_size():
    wall = box((1, 60, 5), (30, 0, 2.5), Material.WALL, (0.5, 0.5, 0.5))
    scene = flat_scene([], Motion(0, 0, 0.0, 5.0), [wall])
    radar = Radar(Pose(np.eye(3), np.array([3.4, 0.0, 0.6])), false_alarms=8.0)
    sweeps = [measure(scene, radar, seed=k)[1] for k in range(12)]
    true = np.concatenate([s.compensated[s.object_index == -1] for s in sweeps])
    assert true.std() == pytest.approx(radar.noise[2], rel=0.15)
    alarms = [(s.object_index == FALSE_ALARM).sum() for s in sweeps]
    assert 5 < np.mean(alarms) < 11
    # Drop-out: a tenth and a bit of what an ideal radar of this threshold finds.
    _, ideal = measure(scene, Radar(radar.pose, **IDEAL))
    share = np.mean([(s.object_index == -1).sum() for s in sweeps]) / len(ideal.rcs)
    assert 0.6 < share < 1.0


def sweep_of(count, false=()):
    owner = np.full(count, -1)
    owner[list(false)] = FALSE_ALARM
    rng = np.random.default_rng(3)
    xy = rng.uniform(2, 60, (count, 2)) * np.where(rng.random((count, 2)) < 0.5, 1, -1)
    speed = rng.normal(0, 5, count)
    return RadarSweep(xy, speed - 4, speed, rng.uniform(-5, 20, count), owner, np.abs(speed))


def test_the_file_is_read_back_by_the_devkit(tmp_path):
    data_classes = pytest.importorskip('nuscenes.utils.data_classes')
    sweep = sweep_of(60)
    records = files.radar_records(sweep, np.random.default_rng(0))
    files.write_radar(tmp_path / 'r.pcd', records)
    everything = list(range(18))
    points = data_classes.RadarPointCloud.from_file(
        str(tmp_path / 'r.pcd'), everything, everything, everything
    ).points
    assert points.shape == (18, 60)
    for row, (name, _, _) in zip(points, files.RADAR_FIELDS, strict=True):
        np.testing.assert_array_equal(row, records[name].astype(np.float64), err_msg=name)
    np.testing.assert_allclose(points[:2].T, sweep.xy, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(*points[6:8]), np.abs(sweep.velocity), rtol=1e-5)
    np.testing.assert_allclose(np.hypot(*points[8:10]), np.abs(sweep.compensated), rtol=1e-5)
    # Along the line of sight: no part of the velocity is across it.
    across = points[0] * points[9] - points[1] * points[8]
    np.testing.assert_allclose(across / np.hypot(*points[:2]), 0, atol=1e-5)


def test_an_empty_measurement_is_read_back_as_empty(tmp_path):
    data_classes = pytest.importorskip('nuscenes.utils.data_classes')
    files.write_radar(tmp_path / 'r.pcd', files.radar_records(sweep_of(0), np.random.default_rng()))
    cloud = data_classes.RadarPointCloud.from_file(str(tmp_path / 'r.pcd'))
    assert cloud.points.shape == (18, 0)


def test_the_standard_filters_keep_true_detections_and_some_false_ones(tmp_path):
    data_classes = pytest.importorskip('nuscenes.utils.data_classes')
    false = range(500, 1000)
    records = files.radar_records(sweep_of(1000, false), np.random.default_rng(5))
    files.write_radar(tmp_path / 'r.pcd', records)
    kept = data_classes.RadarPointCloud.from_file(str(tmp_path / 'r.pcd')).points[4].astype(int)
    np.testing.assert_array_equal(kept, np.flatnonzero(files.kept_by_default(records)))
    assert 450 < (kept < 500).sum() < 500
    assert 170 < (kept >= 500).sum() < 310
