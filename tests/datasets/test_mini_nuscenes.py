"""Mini nuScenes, read with the official devkit and checked against the world it was taken from."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')
pytest.importorskip('PIL', reason='the mini world needs Pillow')
pytest.importorskip('nuscenes', reason='read with nuscenes-devkit')

from nuscenes.nuscenes import NuScenes  # noqa: E402
from nuscenes.utils import splits  # noqa: E402
from nuscenes.utils.data_classes import LidarPointCloud, RadarPointCloud  # noqa: E402
from nuscenes.utils.geometry_utils import points_in_box, view_points  # noqa: E402
from PIL import Image  # noqa: E402
from pyquaternion import Quaternion  # noqa: E402

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.mini import build_nuscenes as build  # noqa: E402
from explain3d.datasets.mini import nuscenes as mini  # noqa: E402
from explain3d.datasets.mini import nuscenes_schema as schema  # noqa: E402
from explain3d.datasets.mini.nuscenes_files import lidar_points  # noqa: E402
from explain3d.datasets.mini.replay import Replay  # noqa: E402
from explain3d.datasets.mini.rig import CHANNELS, nuscenes_rig  # noqa: E402

NAME = 'scene-0061'
SIZE = (160, 90)


@pytest.fixture(scope='module')
def nusc(mini_nuscenes):
    return NuScenes('v1.0-mini', str(mini_nuscenes), verbose=False)


@pytest.fixture(scope='module')
def parameters(mini_nuscenes):
    found = json.loads((mini_nuscenes / 'mini_manifest.json').read_text())
    found = {k: v for k, v in found.items() if k not in ('format', 'generator_version')}
    return build.NuScenesParameters(**found | {'image_size': tuple(found['image_size'])})


@pytest.fixture(scope='module')
def world(parameters):
    """The simulated scene, its pose in the map, and snapshots with tracers by keyframe."""
    scene, map_pose = mini.scene_world(NAME, parameters)
    replay = Replay(scene)
    return scene, map_pose, [replay.at(0.5 * k) for k in range(parameters.keyframes)]


@pytest.fixture(scope='module')
def sample(nusc):
    """The second keyframe."""
    scene = next(s for s in nusc.scene if s['name'] == NAME)
    return nusc.get('sample', scene['last_sample_token'])


def matrix(record):
    out = np.eye(4)
    out[:3, :3] = Quaternion(record['rotation']).rotation_matrix
    out[:3, 3] = record['translation']
    return out


def sensor_to_global(nusc, token):
    data = nusc.get('sample_data', token)
    ego = nusc.get('ego_pose', data['ego_pose_token'])
    sensor = nusc.get('calibrated_sensor', data['calibrated_sensor_token'])
    return matrix(ego) @ matrix(sensor)


def to_global(nusc, token, points):
    """(N, 3) sensor points in the map frame, from the tables alone."""
    pose = sensor_to_global(nusc, token)
    return points[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]


@pytest.fixture(scope='module')
def owner(nusc, sample, world):
    """Index of the simulated actor of each annotation, by place."""
    _, map_pose, moments = world
    actors = map_pose.apply(np.array([o.pose.translation for o in moments[1][0].objects]))
    out = {}
    for token in sample['anns']:
        place = np.array(nusc.get('sample_annotation', token)['translation'])
        out[token] = int(np.argmin(np.linalg.norm(actors - place, axis=1)))
    assert len(set(out.values())) == len(out)
    return out


# ---- tables --------------------------------------------------------------------------------------


def test_the_devkit_finds_everything(nusc, mini_nuscenes):
    assert {s['name'] for s in nusc.scene} == {'scene-0061', 'scene-0103'}
    for sample in nusc.sample:
        assert set(sample['data']) == set(CHANNELS)
        assert len(sample['anns']) > 10
        for token in sample['data'].values():
            data = nusc.get('sample_data', token)
            assert data['timestamp'] == sample['timestamp']
            assert (mini_nuscenes / data['filename']).stat().st_size > 0
    for data in nusc.sample_data:
        assert data['is_key_frame'] == data['filename'].startswith('samples/')
        assert nusc.get('ego_pose', data['ego_pose_token'])['timestamp'] == data['timestamp']
        if data['sensor_modality'] == 'camera':
            with Image.open(mini_nuscenes / data['filename']) as picture:
                assert picture.size == (data['width'], data['height']) == SIZE


def test_readings_form_one_chain_a_sensor(nusc):
    """Also: what is no keyframe belongs to the next one, as in nuScenes."""
    for channel, per_scene in {'RADAR_FRONT': 8, 'LIDAR_TOP': 4, 'CAM_BACK': 2}.items():
        for scene in nusc.scene:
            first = nusc.get('sample', scene['first_sample_token'])
            token = first['data'][channel]
            while nusc.get('sample_data', token)['prev']:
                token = nusc.get('sample_data', token)['prev']
            chain = []
            while token:
                chain.append(nusc.get('sample_data', token))
                token = chain[-1]['next']
            assert len(chain) == per_scene
            times = [data['timestamp'] for data in chain]
            np.testing.assert_allclose(np.diff(times), 2e6 / per_scene * 0.5, atol=1)
            for data in chain:
                sample = nusc.get('sample', data['sample_token'])
                assert 0 <= sample['timestamp'] - data['timestamp'] < 500_000


def test_annotations_form_one_chain_an_instance(nusc):
    lengths = []
    for instance in nusc.instance:
        token, chain = instance['first_annotation_token'], []
        while token:
            chain.append(nusc.get('sample_annotation', token))
            token = chain[-1]['next']
        assert chain[-1]['token'] == instance['last_annotation_token']
        assert len(chain) == instance['nbr_annotations']
        assert {a['instance_token'] for a in chain} == {instance['token']}
        assert len({tuple(a['size']) for a in chain}) == 1
        samples = [nusc.get('sample', a['sample_token']) for a in chain]
        assert all(a['next'] == b['token'] for a, b in zip(samples, samples[1:], strict=False))
        # The ends of a chain are where a sensor saw the object.
        assert all(chain[k]['num_lidar_pts'] + chain[k]['num_radar_pts'] > 0 for k in (0, -1))
        lengths.append(len(chain))
    assert sum(lengths) == len(nusc.sample_annotation)
    assert max(lengths) == 2


def test_names_are_those_of_nuscenes(nusc):
    official = {
        'v1.0-trainval': {'train': splits.train, 'val': splits.val},
        'v1.0-mini': {'train': splits.mini_train, 'val': splits.mini_val},
        'v1.0-test': {'test': splits.test},
    }
    for version, names in schema.SPLITS.items():
        for split, members in names.items():
            assert len(set(members)) == len(members)
            assert set(members) <= set(official[version][split])
    groups = ('human', 'animal', 'movable_object', 'static_object', 'vehicle')
    official = {name for name in nusc.colormap if name.split('.')[0] in groups} - {'vehicle.ego'}
    assert {c['name'] for c in nusc.category} == official


def test_velocity_and_attributes_are_those_of_the_actors(nusc, sample, world, owner):
    scene, map_pose, moments = world
    speeds = {'moving': [], 'still': []}
    for token, index in owner.items():
        annotation, actor = nusc.get('sample_annotation', token), scene.actors[index]
        attribute = nusc.get('attribute', annotation['attribute_tokens'][0])['name']
        moving = actor.motion.speed > 0
        if actor.label == 'Cyclist':
            assert attribute == 'cycle.with_rider'
        elif actor.label == 'Pedestrian':
            assert attribute == f'pedestrian.{"moving" if moving else "standing"}'
        else:
            standing = 'parked' if actor.parked else 'stopped'
            assert attribute == f'vehicle.{"moving" if moving else standing}'
        if not annotation['prev']:
            continue
        wanted = map_pose.rotation @ moments[1][0].objects[index].velocity
        np.testing.assert_allclose(nusc.box_velocity(token)[:2], wanted[:2], atol=0.25)
        speeds['moving' if moving else 'still'].append(np.linalg.norm(nusc.box_velocity(token)))
    assert max(speeds['still']) == 0
    assert max(speeds['moving']) > 2


def test_the_ego_vehicle_is_on_the_carriageway_of_the_map(nusc):
    for data in nusc.sample_data:
        if data['channel'] != 'LIDAR_TOP':
            continue
        sample = nusc.get('sample', data['sample_token'])
        log = nusc.get('scene', sample['scene_token'])['log_token']
        mask = nusc.get('map', nusc.get('log', log)['map_token'])['mask']
        x, y, _ = nusc.get('ego_pose', data['ego_pose_token'])['translation']
        assert mask.is_on_mask(x, y)
        around = np.stack(np.meshgrid(np.arange(-40, 41, 4), np.arange(-40, 41, 4)), -1)
        assert not mask.is_on_mask(*(around.reshape(-1, 2) + [x, y]).T).all()


# ---- LiDAR ---------------------------------------------------------------------------------------


def test_counts_of_points_are_those_of_the_devkit(nusc):
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
        points = LidarPointCloud.from_file(path).points[:3]
        counted = [int(points_in_box(box, points).sum()) for box in boxes]
        noted = [nusc.get('sample_annotation', b.token)['num_lidar_pts'] for b in boxes]
        # A point on a face may fall to either side in the devkit's other order of operations.
        np.testing.assert_allclose(counted, noted, atol=1)
        assert sum(noted) > 500


def test_boxes_hold_the_points_of_their_objects(nusc, sample, world, owner, parameters):
    scene, _, moments = world
    snapshot, tracer = moments[1]
    index = [k for k, m in enumerate(parameters.moments()) if m.is_key][1]
    seed = [parameters.seed, 61, 2, index, CHANNELS.index('LIDAR_TOP')]
    sweep = nuscenes_rig(SIZE).lidar.scan(tracer, snapshot, np.random.default_rng(seed))
    token = sample['data']['LIDAR_TOP']
    path, boxes, _ = nusc.get_sample_data(token)
    raw = np.fromfile(path, np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(raw, lidar_points(sweep))
    held = []
    for box in boxes:
        points = raw[sweep.object_index == owner[box.token], :3].T
        box.wlh = box.wlh + 0.2  # range noise, slopes
        assert points_in_box(box, points).all()
        held.append(points.shape[1])
    assert sum(held) > 500
    assert raw[:, 4].min() == 0
    assert raw[:, 4].max() == 31
    # Ring 0 is the lowest beam.
    elevation = np.arctan2(raw[:, 2], np.hypot(raw[:, 0], raw[:, 1]))
    assert np.rad2deg(elevation[raw[:, 4] == 0].mean()) == pytest.approx(-30.67, abs=0.1)


def test_earlier_lidar_sweeps_line_up(nusc, sample, world, owner):
    """Parked vehicles stay where they are; what drives is found where it was."""
    scene, map_pose, _ = world
    cloud, lag = LidarPointCloud.from_file_multisweep(
        nusc, sample, 'LIDAR_TOP', 'LIDAR_TOP', nsweeps=3
    )
    np.testing.assert_allclose(np.unique(lag), [0, 0.25, 0.5], atol=1e-6)
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    old = cloud.points[:3, lag[0] > 0.4]
    parked = moved = 0
    for box in boxes:
        note = nusc.get('sample_annotation', box.token)
        actor = scene.actors[owner[box.token]]
        if not note['prev']:
            continue
        before = nusc.get('sample_annotation', note['prev'])['num_lidar_pts']
        if actor.motion.speed == 0 and note['num_lidar_pts'] > 40:
            # The same box has about as many points from half a second before.
            assert points_in_box(box, old).sum() == pytest.approx(before, abs=2 + 0.05 * before)
            parked += 1
        elif actor.motion.speed > 3 and before > 20:
            velocity = sensor_to_global(nusc, sample['data']['LIDAR_TOP'])[:3, :3].T @ (
                nusc.box_velocity(box.token)
            )
            assert points_in_box(box, old).sum() < 0.8 * before
            box.translate(-0.5 * velocity)
            assert points_in_box(box, old).sum() > 0.7 * before
            moved += 1
    assert parked >= 3
    assert scene.ego.speed > 1
    assert moved >= 1


# ---- radar ---------------------------------------------------------------------------------------


def test_detections_lie_on_objects_and_are_counted(nusc):
    total = 0
    for sample in nusc.sample:
        places = []
        for channel, token in sample['data'].items():
            if channel.startswith('RADAR'):
                cloud = RadarPointCloud.from_file(nusc.get_sample_data_path(token))
                assert (np.abs(cloud.points[:2]).max(1) < 101).all()
                places.append(to_global(nusc, token, cloud.points.T))
        places = np.concatenate(places)
        assert 100 < len(places) < 5 * 125
        for token in sample['anns']:
            box, note = nusc.get_box(token), nusc.get('sample_annotation', token)
            flat = np.column_stack([places[:, :2], np.full(len(places), box.center[2])])
            assert points_in_box(box, flat.T).sum() == note['num_radar_pts']
            total += note['num_radar_pts']
    assert total > 30


def test_earlier_radar_sweeps_line_up(nusc, sample, world, owner):
    """Detections of the sweep before find parked vehicles where they stand."""
    scene, _, _ = world
    gaps = {0.0: [], 0.375: []}
    lidar = sensor_to_global(nusc, sample['data']['LIDAR_TOP'])
    parked = [
        nusc.get_box(token)
        for token, index in owner.items()
        if scene.actors[index].parked or scene.actors[index].motion.speed == 0
    ]
    for channel in (c for c in CHANNELS if c.startswith('RADAR')):
        cloud, lag = RadarPointCloud.from_file_multisweep(
            nusc, sample, channel, 'LIDAR_TOP', nsweeps=4
        )
        np.testing.assert_allclose(np.unique(lag), [0, 0.125, 0.25, 0.375], atol=1e-6)
        places = cloud.points[:3].T @ lidar[:3, :3].T + lidar[:3, 3]
        for box in parked:
            local = (places - box.center) @ box.rotation_matrix
            beyond = np.linalg.norm(
                np.maximum(np.abs(local[:, :2]) - box.wlh[[1, 0]] / 2, 0), axis=1
            )
            near = (beyond < 1.5) & (np.hypot(*(places - lidar[:3, 3])[:, :2].T) < 30)
            for age, values in gaps.items():
                values += list(beyond[near & (np.abs(lag[0] - age) < 1e-3)])
    # If the ego motion (several metres a second) were not taken out, the older ones would be off.
    assert len(gaps[0.375]) > 10
    assert np.mean(gaps[0.375]) < np.mean(gaps[0.0]) + 0.12
    assert scene.ego.speed * 0.375 > 1


def test_what_stands_seems_to_stand_and_what_drives_to_drive(nusc, sample, world, owner):
    _, map_pose, moments = world
    errors, moving = [], 0
    for channel in (c for c in CHANNELS if c.startswith('RADAR')):
        token = sample['data'][channel]
        cloud = RadarPointCloud.from_file(nusc.get_sample_data_path(token)).points
        pose, places = sensor_to_global(nusc, token), to_global(nusc, token, cloud.T)
        for annotation, index in owner.items():
            box = nusc.get_box(annotation)
            flat = np.column_stack([places[:, :2], np.full(len(places), box.center[2])])
            inside = points_in_box(box, flat.T)
            velocity = pose[:3, :3].T @ map_pose.rotation @ moments[1][0].objects[index].velocity
            sight = cloud[:2, inside] / np.linalg.norm(cloud[:2, inside], axis=0)
            measured = (cloud[8:10, inside] * sight).sum(0)
            errors += list(measured - velocity[:2] @ sight)
            moving += inside.sum() * (np.linalg.norm(velocity) > 2)
    # 0.08 m/s of noise; some detections in a box are of what stands beside it.
    assert len(errors) > 20
    assert moving > 0
    assert np.median(np.abs(errors)) < 0.12
    assert np.mean(np.abs(errors) < 0.5) > 0.85


# ---- cameras -------------------------------------------------------------------------------------


def test_projected_boxes_frame_the_rendered_objects(nusc, sample, world, owner):
    snapshot, tracer = world[2][1]
    rig, overlaps = nuscenes_rig(SIZE), []
    for channel, camera in rig.cameras.items():
        _, boxes, intrinsic = nusc.get_sample_data(sample['data'][channel])
        np.testing.assert_array_equal(intrinsic, camera.matrix)
        grid, pose = camera.pixel_grid(1), camera.world_pose(snapshot)
        face = tracer.cast(pose.translation, camera.rays(grid.reshape(-1, 2), pose)).face
        seen = np.where(face < 0, -1, snapshot.face_object[face]).reshape(grid.shape[:2])
        for box in boxes:
            rows, columns = np.nonzero(seen == owner[box.token])
            if len(rows) < 12 or box.corners()[2].min() < 1:
                continue
            u, v, _ = view_points(box.corners(), intrinsic, normalize=True)
            # One pixel, and the slope that a box with yaw alone does not follow.
            slack = 1 + camera.matrix[0, 0] * 0.08 / box.corners()[2].min()
            assert u.min() - slack <= columns.min()
            assert columns.max() <= u.max() + slack
            assert v.min() - slack <= rows.min()
            assert rows.max() <= v.max() + slack
            note = nusc.get('sample_annotation', box.token)
            whole = columns.min() > 0 and columns.max() < SIZE[0] - 1 and rows.max() < SIZE[1] - 1
            if whole and note['visibility_token'] == '4':
                filled = np.ptp(columns) + 1, np.ptp(rows) + 1
                overlaps.append(filled[0] * filled[1] / (np.ptp(u) * np.ptp(v)))
    # Those that nothing hides fill most of their frame.
    assert len(overlaps) >= 5
    assert np.median(overlaps) > 0.7


def test_visibility_is_the_unhidden_share(nusc, sample, world, owner):
    """Against one ray per pixel of pictures with and without everything else."""
    from explain3d.datasets.mini.tracing import Tracer

    snapshot, tracer = world[2][1]
    cameras = [(c, c.world_pose(snapshot)) for c in nuscenes_rig((320, 180)).cameras.values()]
    rays = [(w, c.rays(c.pixel_grid(1).reshape(-1, 2), w)) for c, w in cameras]
    faces = [tracer.cast(w.translation, r).face for w, r in rays]
    checked = 0
    for token, index in list(owner.items()):
        alone, seen, whole = Tracer(snapshot.objects[index].mesh), 0, 0
        for (pose, ray), face in zip(rays, faces, strict=True):
            silhouette = alone.cast(pose.translation, ray).face >= 0
            whole += silhouette.sum()
            seen += (silhouette & (face >= 0) & (snapshot.face_object[face] == index)).sum()
        if whole < 400:
            continue
        share, level = seen / whole, int(nusc.get('sample_annotation', token)['visibility_token'])
        bounds = (0, 0.4, 0.6, 0.8, 1)
        assert bounds[level - 1] - 0.05 <= share <= bounds[level] + 0.05
        checked += 1
    assert checked >= 4


# ---- seeds, resuming -----------------------------------------------------------------------------


def test_a_scene_is_the_same_in_another_set_and_process(mini_nuscenes, parameters, tmp_path):
    root = tmp_path / 'alone'
    build.build_nuscenes(root, replace(parameters, scenes_train=0), 2, report=lambda text: None)
    made = [p for p in root.rglob('*') if p.is_file()]
    made = [p.relative_to(root) for p in made if p.parent.name not in ('alone', 'v1.0-mini')]
    # Rows, record, map, 12 sensors at 2 keyframes, and before each 3 sweeps of 5 radars and 1 of
    # the LiDAR.
    assert len(made) == 3 + 12 * 2 + (5 * 3 + 1) * 2
    for name in made:
        assert (root / name).read_bytes() == (mini_nuscenes / name).read_bytes(), name


def test_a_complete_set_is_left_alone_and_a_lost_scene_made_anew(
    mini_nuscenes, parameters, monkeypatch
):
    tables = {p: p.stat().st_mtime_ns for p in mini_nuscenes.glob('v1.0-mini/*')}
    messages, made = [], []
    build.build_nuscenes(mini_nuscenes, parameters, report=messages.append)
    assert messages == [f'{mini_nuscenes}: all 2 scenes are there']
    rows = mini.rows_file(mini_nuscenes, 'scene-0103')
    text = rows.read_text()

    def remake(root, name, split, recipe):
        made.append((name, split))
        mini.rows_file(root, name).write_text(text)

    monkeypatch.setattr(build, 'make_scene', remake)
    rows.unlink()
    build.build_nuscenes(mini_nuscenes, parameters, report=messages.append)
    assert made == [('scene-0103', 'val')]
    assert {p: p.stat().st_mtime_ns for p in mini_nuscenes.glob('v1.0-mini/*')} == tables


def test_other_parameters_are_refused_with_the_remedy(mini_nuscenes, parameters):
    with pytest.raises(InputError, match=r"'seed': 0.*'seed': 1.*choose another folder"):
        build.build_nuscenes(mini_nuscenes, replace(parameters, seed=1))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scenes_val': 42}, 'Expected 0 to 41 scenes for the val split'),
        ({'scenes_train': 9, 'version': 'v1.0-mini'}, 'Expected 0 to 8 scenes for the train'),
        ({'version': 'v1.0-test'}, "received 'v1.0-test'"),
        ({'keyframes': 0}, 'at least one scene and one keyframe'),
        ({'lidar_sweeps': 6}, 'lidar_sweeps <= radar_sweeps'),
        ({'image_size': (400, 0)}, 'at least 16 x 16'),
    ],
)
def test_impossible_parameters_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        build.build_nuscenes(tmp_path / 'new', build.NuScenesParameters(**change))
    assert not (tmp_path / 'new').exists()


def test_moments_hold_the_sweeps_that_were_asked_for():
    moments = mini.Recipe(keyframes=2, radar_sweeps=5, lidar_sweeps=2).moments()
    assert [m.is_key for m in moments] == [*[False] * 5, True] * 2
    assert [m.lidar for m in moments] == [False, True, False, True, False, False] * 2
    np.testing.assert_allclose([m.time for m in moments], np.arange(-5, 7) / 12, atol=1e-12)
    assert [m.keyframe for m in moments] == [0] * 6 + [1] * 6


def test_quaternions_are_those_of_pyquaternion():
    turns = [Quaternion.random() for _ in range(50)]
    turns += [Quaternion(axis=a, degrees=180) for a in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3])]
    turns.append(Quaternion())
    for turn in turns:
        got = Quaternion(schema.quaternion(turn.rotation_matrix))
        assert got.w >= -1e-9
        assert Quaternion.absolute_distance(got, turn.normalised) < 1e-7


def test_the_command_makes_a_data_set_and_reports_a_mistake(tmp_path, capsys, monkeypatch):
    path = Path(__file__).parents[2] / 'tools' / 'make_mini_dataset.py'
    calls = {}
    script = runpy.run_path(str(path))
    monkeypatch.setitem(
        script['make_nuscenes'].__globals__,
        'build_nuscenes',
        lambda out, parameters, workers: calls.update(p=parameters, out=out, workers=workers),
    )
    command = ['nuscenes', '--out', str(tmp_path / 'n'), '--image-size', '320x180']
    command += ['--workers', '2']
    assert script['main']([*command, '--scenes-train', '3', '--keyframes', '4']) == 0
    wanted = build.NuScenesParameters(scenes_train=3, keyframes=4, image_size=(320, 180))
    assert calls == {'p': wanted, 'out': tmp_path / 'n', 'workers': 2}
    monkeypatch.undo()
    assert script['main']([*command, '--scenes-val', '99']) == 1
    assert 'ask for fewer scenes' in capsys.readouterr().err
