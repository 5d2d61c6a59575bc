"""Mini Waymo: its files against the world they were taken from, and against each other."""

import pickle
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')
pytest.importorskip('PIL', reason='the mini world needs Pillow')

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.mini import build_waymo as build  # noqa: E402
from explain3d.datasets.mini import waymo_pcdet  # noqa: E402
from explain3d.datasets.mini.build_waymo import WaymoParameters  # noqa: E402
from explain3d.datasets.mini.replay import Replay  # noqa: E402
from explain3d.datasets.mini.waymo import Box, Recipe, SegmentId, segment_world  # noqa: E402
from explain3d.datasets.mini.waymo_rig import cameras, top_elevations, top_lidar  # noqa: E402

PARAMETERS = WaymoParameters(
    segments_train=1, segments_val=1, frames=3, columns=500, images=True, image_size=(96, 64)
)
TRAIN, VAL = SegmentId('train', 0), SegmentId('val', 0)
TOP = np.array([1.43, 0.0, 2.18])


def load(path):
    with Path(path).open('rb') as file:
        return pickle.load(file)


@pytest.fixture(scope='module')
def infos(mini_waymo):
    """OpenPCDet's infos of the validation segment."""
    return load(mini_waymo / waymo_pcdet.TAG / VAL.name / f'{VAL.name}.pkl')


@pytest.fixture(scope='module')
def clouds(mini_waymo):
    """(N, 6) points of each frame of the validation segment, as OpenPCDet gets them."""
    folder = mini_waymo / waymo_pcdet.TAG / VAL.name
    return [np.load(folder / f'{frame:04d}.npy') for frame in range(3)]


@pytest.fixture(scope='module')
def world():
    """The simulated scene of the validation segment, its pose, and snapshots with tracers."""
    scene, map_pose = segment_world(VAL, PARAMETERS)
    replay = Replay(scene)
    return scene, map_pose, [replay.at(0.1 * frame) for frame in range(3)]


def held(points, box, slack=0.0):
    """(N,) whether points lie in a box (7,), one half-space after the other."""
    ahead = np.array([np.cos(box[6]), np.sin(box[6]), 0])
    axes = np.stack([ahead, [-ahead[1], ahead[0], 0], [0, 0, 1.0]])
    offset = (points[:, :3].astype(np.float64) - box[:3]) @ axes.T
    return (np.abs(offset) <= box[3:6] / 2 + slack).all(1)


def actor(object_id):
    return int(object_id.rsplit('-', 1)[1])


# ---- points --------------------------------------------------------------------------------------


def test_beams_span_waymos_field_of_view():
    degrees = np.rad2deg(top_elevations())
    assert degrees[[0, -1]] == pytest.approx([2.4, -17.6])
    gaps = -np.diff(degrees)
    assert len(degrees) == 64
    assert gaps.min() > 0.1
    assert gaps.max() < 0.6
    assert (np.diff(gaps) > 0).all()


def test_points_are_on_the_beams_of_a_lidar_above_the_rear_axle(mini_waymo):
    path = mini_waymo / 'kitti_format' / 'training' / 'velodyne' / '1000001.bin'
    points = np.fromfile(path, np.float32).reshape(-1, 6)
    offset = points[:, :3] - TOP
    row, column = np.divmod(points[:, 5].astype(int), 500)
    elevation = np.arctan2(offset[:, 2], np.hypot(offset[:, 0], offset[:, 1]))
    np.testing.assert_allclose(elevation, top_elevations()[row], atol=1e-4)
    # Azimuth falls with the column, all round.
    azimuth = np.pi - np.arctan2(offset[:, 1], offset[:, 0])
    np.testing.assert_allclose(azimuth, 2 * np.pi * (column + 0.5) / 500, atol=1e-3)
    assert len(np.unique(points[:, 5])) == len(points)
    assert np.linalg.norm(offset, axis=1).max() < 75.2
    # The ground is at z = 0 around the vehicle.
    near = np.hypot(points[:, 0], points[:, 1]) < 10
    assert abs(np.percentile(points[near, 2], 20)) < 0.15


def test_intensity_survives_the_hosts_tanh_and_elongation_is_small(clouds, world):
    snapshot, tracer = world[2][1]
    lidar = top_lidar(500)
    sweep = lidar.scan(tracer, snapshot, np.random.default_rng([0, 1, 0, 2, 1]))
    assert clouds[1].dtype == np.float32
    np.testing.assert_allclose(np.tanh(clouds[1][:, 3]), sweep.points[:, 3], atol=1e-6)
    np.testing.assert_allclose(clouds[1][:, :3] - TOP, sweep.points[:, :3], atol=1e-5)
    assert (clouds[1][:, 5] == -1).all()
    leaves = sweep.material == 12
    assert clouds[1][:, 4].min() >= 0
    assert clouds[1][:, 4].max() <= 1.5
    assert clouds[1][leaves, 4].mean() > 2 * np.median(clouds[1][~leaves, 4])


def test_both_hosts_get_the_same_points(mini_waymo, clouds):
    for frame, cloud in enumerate(clouds):
        path = mini_waymo / 'kitti_format' / 'training' / 'velodyne' / f'100000{frame}.bin'
        other = np.fromfile(path, np.float32).reshape(-1, 6)
        np.testing.assert_array_equal(other[:, :5], cloud[:, :5])


# ---- boxes ---------------------------------------------------------------------------------------


def test_boxes_hold_the_points_that_are_counted(infos, clouds):
    total = 0
    for info, cloud in zip(infos, clouds, strict=True):
        annos = info['annos']
        counted = [held(cloud, box).sum() for box in annos['gt_boxes_lidar'][:, :7]]
        np.testing.assert_array_equal(counted, annos['num_points_in_gt'])
        few = annos['num_points_in_gt'] <= 5
        np.testing.assert_array_equal(annos['difficulty'], np.where(few, 2, 1))
        assert info['num_points_of_each_lidar'] == [len(cloud), 0, 0, 0, 0]
        total += sum(counted)
    assert total > 1000


def test_boxes_hold_the_points_of_their_objects(infos, clouds, world):
    snapshot, tracer = world[2][2]
    sweep = top_lidar(500).scan(tracer, snapshot, np.random.default_rng([0, 1, 0, 2, 2]))
    annos, of_objects = infos[2]['annos'], 0
    for name, box in zip(annos['obj_ids'], annos['gt_boxes_lidar'][:, :7], strict=True):
        own = sweep.object_index == actor(name)
        # Range noise, and slopes that a box with yaw alone does not follow.
        assert held(clouds[2][own], box, slack=0.12).all()
        of_objects += own.sum()
    assert of_objects > 400


def test_what_is_seen_is_labelled_with_waymos_names(infos, world):
    scene = world[0]
    names = {'Pedestrian': 'Pedestrian', 'Cyclist': 'Cyclist'}
    for info in infos:
        annos = info['annos']
        for name, object_id in zip(annos['name'], annos['obj_ids'], strict=True):
            assert name == names.get(scene.actors[actor(object_id)].label, 'Vehicle')
        assert len(set(annos['obj_ids'])) == len(annos['obj_ids'])
        assert (np.hypot(*annos['location'][:, :2].T) < 80).all()
        assert {'Vehicle', 'Pedestrian'} <= set(annos['name'])
    # Without a gap from the first to the last frame with a point.
    seen = [dict(zip(i['annos']['obj_ids'], i['annos']['num_points_in_gt'])) for i in infos]  # noqa: B905
    for object_id in set().union(*seen):
        there = [k for k, frame in enumerate(seen) if object_id in frame]
        assert there == list(range(there[0], there[-1] + 1))
        assert seen[there[0]][object_id] > 0
        assert seen[there[-1]][object_id] > 0


def test_boxes_move_with_their_speed_in_the_global_frame(infos, world):
    scene, _, moments = world
    places = []
    for info in infos:
        annos, pose = info['annos'], info['pose'].astype(np.float64)
        assert pose.shape == (4, 4)
        world_places = annos['location'] @ pose[:3, :3].T + pose[:3, 3]
        places.append(dict(zip(annos['obj_ids'], world_places, strict=True)))
        velocity = np.pad(annos['gt_boxes_lidar'][:, 7:9], ((0, 0), (0, 1))) @ pose[:3, :3].T
        # The slope of the road is all that the vehicle's x and y leave out.
        np.testing.assert_allclose(velocity[:, :2], annos['speed_global'], atol=0.05)
    annos, standing, moving = infos[0]['annos'], 0, 0
    for object_id, speed in zip(annos['obj_ids'], annos['speed_global'], strict=True):
        if object_id not in places[2]:
            continue
        travelled = (places[2][object_id] - places[0][object_id])[:2]
        # float32 poses a kilometre from the origin, and wheels on uneven ground.
        np.testing.assert_allclose(travelled, 0.2 * speed, atol=0.03)
        assert np.hypot(*speed) == pytest.approx(
            scene.actors[actor(object_id)].motion.speed, rel=0.02
        )
        standing, moving = standing + (not speed.any()), moving + (np.hypot(*speed) > 2)
    assert standing > 0
    assert moving > 0
    # The ego vehicle drives where its pose says.
    travelled = infos[2]['pose'][:2, 3] - infos[0]['pose'][:2, 3]
    assert np.hypot(*travelled) == pytest.approx(0.2 * scene.ego.speed, abs=0.02)
    stamps = [info['metadata']['timestamp_micros'] for info in infos]
    np.testing.assert_array_equal(np.diff(stamps), 100_000)


def test_both_hosts_get_the_same_boxes(mini_waymo, infos):
    found = load(mini_waymo / 'kitti_format' / 'waymo_infos_val.pkl')['data_list']
    labels = ['Vehicle', 'Pedestrian', 'Cyclist']
    for info, other in zip(infos, found, strict=True):
        annos = info['annos']
        with_points = annos['num_points_in_gt'] > 0
        wanted = annos['gt_boxes_lidar'][with_points, :7]
        wanted[:, 2] -= wanted[:, 5] / 2  # there, boxes stand on their bottom centre
        instances = other['instances']
        boxes = np.array([instance['bbox_3d'] for instance in instances])
        np.testing.assert_allclose(boxes, wanted, atol=1e-5)
        names = [labels[instance['bbox_label_3d']] for instance in instances]
        np.testing.assert_array_equal(names, annos['name'][with_points])
        np.testing.assert_array_equal(other['ego2global'], info['pose'])
        assert other['timestamp'] == info['metadata']['timestamp_micros']


def test_a_frame_without_objects_has_empty_arrays_of_the_right_width():
    annos = waymo_pcdet.annotations([], np.eye(4))
    assert annos['gt_boxes_lidar'].shape == (0, 9)
    assert annos['name'].shape == (0,)
    one = waymo_pcdet.annotations([Box('Cyclist', 'a', [1.0] * 7, 6, [1, 2], [0, 0])], np.eye(4))
    assert {k: v.dtype.kind for k, v in annos.items()} == {k: v.dtype.kind for k, v in one.items()}
    assert one['difficulty'].tolist() == [1]


# ---- cameras -------------------------------------------------------------------------------------


def test_points_project_onto_the_surfaces_in_the_pictures(mini_waymo, clouds, world):
    from PIL import Image

    found = load(mini_waymo / 'kitti_format' / 'waymo_infos_val.pkl')['data_list'][1]
    snapshot, tracer = world[2][1]
    points = np.concatenate([clouds[1][:, :3], np.ones((len(clouds[1]), 1))], 1)
    for index, (name, camera) in enumerate(cameras((96, 64)).items()):
        image = found['images'][f'CAM_{name}']
        folder = mini_waymo / 'kitti_format' / 'training' / f'image_{index}'
        with Image.open(folder / image['img_path']) as picture:
            assert picture.size == (image['width'], image['height'])
        u, v, depth = np.array(image['lidar2img']) @ points.T
        pixels = np.column_stack([u / depth, v / depth])
        size = np.array([image['width'], image['height']])
        inside = (depth > 0) & (pixels > 0).all(1) & (pixels < size - 1).all(1)
        assert inside.sum() > 200
        rays = camera.rays(pixels[inside], camera.world_pose(snapshot))
        hits = tracer.cast(camera.world_pose(snapshot).translation, rays)
        in_camera = (np.array(image['lidar2cam']) @ points[inside].T)[:3]
        distance = np.linalg.norm(in_camera, axis=0)
        # Camera and LiDAR are at different places: a few rays meet something in front.
        assert np.mean(np.abs(hits.distance - distance) < 0.15 + 0.02 * distance) > 0.9


# ---- files, seeds, resuming ----------------------------------------------------------------------


def test_lists_name_every_segment_and_frame(mini_waymo):
    lists = {p.name: p.read_text().split() for p in (mini_waymo / 'ImageSets').iterdir()}
    assert lists == {'train.txt': [f'{TRAIN.name}.tfrecord'], 'val.txt': [f'{VAL.name}.tfrecord']}
    folder = mini_waymo / 'kitti_format'
    lists = {p.stem: p.read_text().split() for p in (folder / 'ImageSets').iterdir()}
    names = {
        'train': ['0000000', '0000001', '0000002'],
        'val': ['1000000', '1000001', '1000002'],
    }
    assert lists == names | {'trainval': names['train'] + names['val']}
    for name in lists['trainval']:
        assert (folder / 'training' / 'velodyne' / f'{name}.bin').exists()
    both = load(mini_waymo / f'{waymo_pcdet.TAG}_infos_train.pkl')
    assert [info['frame_id'] for info in both] == [f'{TRAIN.name}_00{k}' for k in range(3)]


def test_a_segment_is_the_same_in_another_set_and_process(mini_waymo, tmp_path):
    root = tmp_path / 'alone'
    build.build_waymo(root, replace(PARAMETERS, segments_train=0), 2, report=lambda text: None)
    made = [p.relative_to(root) for p in root.rglob('*') if p.is_file()]
    made = [p for p in made if VAL.name in str(p) or '/training/' in str(p)]
    # Labels, their record and infos; points for both hosts and five pictures a frame.
    assert len(made) == 3 + 3 * (2 + 5)
    for name in made:
        assert (root / name).read_bytes() == (mini_waymo / name).read_bytes(), name


def test_a_stopped_run_goes_on_and_a_complete_one_is_left_alone(tmp_path):
    parameters = WaymoParameters(
        segments_train=1, segments_val=0, frames=1, columns=64, hosts=('pcdet',)
    )
    root, said = tmp_path / 'set', []
    build.build_waymo(root, parameters, report=said.append)
    before = {p: p.read_bytes() for p in root.rglob('*') if p.is_file()}
    assert not (root / 'kitti_format').exists()
    build.records_file(root, TRAIN).unlink()
    build.build_waymo(root, parameters, report=said.append)
    assert {p: p.read_bytes() for p in root.rglob('*') if p.is_file()} == before
    points = root / waymo_pcdet.TAG / TRAIN.name / '0000.npy'
    written = points.stat().st_mtime_ns
    build.build_waymo(root, parameters, report=said.append)
    assert points.stat().st_mtime_ns == written
    assert 'all 1 segments are there' in said[-1]
    with pytest.raises(InputError, match='holds a mini data set made with'):
        build.build_waymo(root, replace(parameters, seed=1))


def test_the_seed_the_split_and_the_number_decide_the_scene():
    chosen = [(0, TRAIN), (0, VAL), (0, SegmentId('train', 1)), (1, TRAIN)]
    recipe = Recipe(frames=1)
    scenes = [segment_world(segment, replace(recipe, seed=seed))[0] for seed, segment in chosen]
    assert len({scene.scenery.vertices.tobytes() for scene in scenes}) == len(chosen)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(segments_train=0, segments_val=0), 'one at least, received 0 for training and 0'),
        (dict(segments_train=1001), r'0 to 1000 segments a split'),
        (dict(frames=0), 'Expected 1 to 200 frames a segment, received 0'),
        (dict(frames=201), 'received 201'),
        (dict(hosts=('second',)), 'hosts out of pcdet, mmdet3d, received second'),
        (dict(hosts=()), 'received none'),
        (dict(columns=2), 'at least 16 columns'),
    ],
)
def test_parameters_that_make_no_sense(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        build.build_waymo(tmp_path / 'set', replace(WaymoParameters(), **changes))
    assert not (tmp_path / 'set').exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    tool = Path(__file__).parents[2] / 'tools' / 'make_mini_dataset.py'
    main = runpy.run_path(str(tool))['main']
    out = str(tmp_path / 'set')
    command = ['waymo', '--out', out, '--segments', '0', '1', '--frames', '1', '--columns', '64']
    assert main([*command, '--hosts', 'mmdet3d']) == 0
    assert len(list((tmp_path / 'set').rglob('*.bin'))) == 1
    assert not list((tmp_path / 'set').rglob('*.npy'))
    assert main([*command, '--hosts', 'pcdet']) == 1
    assert 'choose another folder' in capsys.readouterr().err
