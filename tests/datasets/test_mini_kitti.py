"""KITTI frames: labels against the points and the picture, files, determinism, resuming."""

import hashlib
import json
import os
import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('embreex', reason='the mini world needs embreex')
Image = pytest.importorskip('PIL.Image', reason='the mini world needs Pillow')

from explain3d.core.errors import InputError  # noqa: E402
from explain3d.datasets.contents import missing_units  # noqa: E402
from explain3d.datasets.mini import kitti  # noqa: E402
from explain3d.datasets.mini.build import (  # noqa: E402
    GENERATOR_VERSION,
    MANIFEST,
    KittiParameters,
    build_kitti,
)
from explain3d.datasets.mini.ground import Ground, Road  # noqa: E402
from explain3d.datasets.mini.materials import Material  # noqa: E402
from explain3d.datasets.mini.mesh import box  # noqa: E402
from explain3d.datasets.mini.scene import Actor, Motion, Scene  # noqa: E402
from explain3d.datasets.mini.tracing import Tracer  # noqa: E402

FRAMES = (0, 1, 2)


@pytest.fixture(scope='module')
def frames():
    return [kitti.simulate(seed=0, index=k, step=8) for k in FRAMES]


def objects(frame):
    return [label for label in frame.labels if label.type != 'DontCare']


def lidar_box(label):
    """(7,) the box in the LiDAR frame, from the label's fields alone."""
    (h, w, l), (x, y, z) = label.size, label.location  # noqa: E741
    return np.array([z + 0.27, -x, -y - 0.08 + h / 2, l, w, h, -label.rotation_y - np.pi / 2])


def in_box_frame(points, box_):
    c, s = np.cos(box_[6]), np.sin(box_[6])
    return (points - box_[:3]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def project(points, calib):
    """(N, 3) u, v, depth from the matrices as KITTI's manual has it: P2 R0 Tr x."""
    x = np.concatenate([points, np.ones((len(points), 1))], 1).T
    rect, velo = np.eye(4), np.eye(4)
    rect[:3, :3], velo[:3] = calib.rectification, calib.velo_to_cam
    u, v, depth = calib.projections[2] @ rect @ velo @ x
    return np.stack([u / depth, v / depth, depth], 1)


# ---- geometry ------------------------------------------------------------------------------------


def test_every_labelled_box_holds_its_own_points(frames):
    for frame in frames:
        for label in objects(frame):
            points = frame.points[frame.object_index == label.object_index, :3].astype(float)
            assert len(points) == label.points > 0
            half = lidar_box(label)[3:6] / 2
            beyond = (np.abs(in_box_frame(points, lidar_box(label))) - half).max(1)
            # Range noise of 0.02 m, and the slope that a box with yaw alone cannot follow.
            assert beyond.max() < 0.15
            assert np.mean(beyond < 0.06) > 0.97


def test_points_in_a_box_that_are_not_the_objects_are_few(frames):
    for frame in frames:
        for label in objects(frame):
            local = np.abs(in_box_frame(frame.points[:, :3].astype(float), lidar_box(label)))
            # Without the lowest 0.15 m, where the ground is.
            half = lidar_box(label)[3:6] / 2
            above = in_box_frame(frame.points[:, :3], lidar_box(label))[:, 2] > 0.15 - half[2]
            held = frame.object_index[(local < half).all(1) & above]
            if len(held):
                assert np.mean(held == label.object_index) > 0.9


def test_all_points_fall_into_the_image(frames):
    for frame in frames:
        u, v, depth = project(frame.points[:, :3].astype(float), frame.calib).T
        assert depth.min() > 0
        assert u.min() >= 0
        assert u.max() < 1242
        assert v.min() >= 0
        assert v.max() < 375


def test_the_full_sweep_holds_the_reduced_one(frames):
    full = kitti.simulate(seed=0, index=0, fov_only=False, step=8)
    seen = kitti.in_image(full.points[:, :3], full.calib)
    np.testing.assert_array_equal(full.points[seen], frames[0].points)
    assert len(full.points) > 3 * len(frames[0].points)


def test_points_of_an_object_project_into_its_2d_box(frames):
    for frame in frames:
        for label in objects(frame):
            points = frame.points[frame.object_index == label.object_index, :3].astype(float)
            u, v, _ = project(points, frame.calib).T
            left, top, right, bottom = label.bbox
            # Pixels that the range noise moves a point by: camera and LiDAR are 0.3 m apart.
            slack = 1 + 720 * 0.3 * 0.08 / np.linalg.norm(points, axis=1).min() ** 2
            assert left - slack <= u.min()
            assert u.max() <= right + slack
            assert top - slack <= v.min()
            assert v.max() <= bottom + slack


def test_2d_boxes_lie_within_the_projected_3d_box(frames):
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    for frame in frames:
        for label in objects(frame):
            b = lidar_box(label)
            c, s = np.cos(b[6]), np.sin(b[6])
            world = (corners * b[3:6]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + b[:3]
            u, v, depth = project(world, frame.calib).T
            if depth.min() < 1:
                continue
            slack = 1 + 720 * 0.06 / depth.min()
            assert u.min() - slack <= label.bbox[0]
            assert label.bbox[2] <= u.max() + slack
            assert v.min() - slack <= label.bbox[1]
            assert label.bbox[3] <= v.max() + slack


def test_2d_boxes_are_those_of_the_silhouette(frames):
    """Also for those that leave the image: against one ray per pixel."""
    checked = 0
    for frame in frames:
        _, camera = kitti.sensors(frame.calib)
        world = camera.world_pose(frame.snapshot)
        grid = camera.pixel_grid(1)
        rays = camera.rays(grid.reshape(-1, 2), world)
        labels = objects(frame)
        cut = [label for label in labels if label.truncated > 0]
        for label in cut + labels[:2]:
            mesh = frame.snapshot.objects[label.object_index].mesh
            seen = Tracer(mesh).cast(world.translation, rays).face.reshape(grid.shape[:2]) >= 0
            v, u = np.nonzero(seen)
            silhouette = [u.min(), v.min(), u.max(), v.max()]
            np.testing.assert_allclose(label.bbox, silhouette, atol=1.5)
            checked += label.truncated > 0
    assert checked >= 3


def test_alpha_is_the_heading_relative_to_the_line_of_sight(frames):
    for frame in frames:
        for label in objects(frame):
            sight = np.arctan2(label.location[0], label.location[2])
            difference = label.rotation_y - sight - label.alpha
            assert np.cos(difference) == pytest.approx(1, abs=1e-9)
            assert -np.pi <= label.rotation_y <= np.pi


# ---- visibility ----------------------------------------------------------------------------------


def scene_with(*actors, walls=()):
    plane = box((300, 300, 1), (0, 0, -0.5), Material.ASPHALT, (0.2, 0.2, 0.2))
    from explain3d.datasets.mini.mesh import merge

    return Scene(
        Ground(Road(kerb=0.0)), merge([plane, *walls]), list(actors), Motion(0, 0, 0),
        np.array([0, 0, 1.0]),
    )  # fmt: skip


def label_of(scene):
    snapshot = scene.at(0.0)
    calib = kitti.calibration()
    lidar, camera = kitti.sensors(calib)
    tracer = Tracer(snapshot.mesh)
    sweep = lidar.scan(tracer, snapshot, np.random.default_rng(0))
    seen = kitti.in_image(sweep.points[:, :3], calib)
    hits = np.bincount(sweep.object_index[seen] + 1, minlength=len(scene.actors) + 1)[1:]
    return kitti.label_objects(snapshot, tracer, camera, lidar, calib, hits)


def block(x, y, yaw=0.0, size=(4.0, 2.0, 1.5)):
    body = box(size, (0, 0, size[2] / 2), Material.PAINT, (0.5, 0.5, 0.5))
    return Actor('Car', Motion(x, y, yaw), lambda t: body)


def wall(x, left, right, height=4.0):
    """A wall across the view that covers y from ``right`` to ``left``."""
    return box(
        (0.2, left - right, height), (x, (left + right) / 2, height / 2), Material.WALL, (0.5,) * 3
    )


def test_an_object_in_the_open_is_fully_visible_and_not_truncated():
    (label,) = label_of(scene_with(block(20, 0)))
    assert (label.truncated, label.occluded) == (0, 0)
    np.testing.assert_allclose(label.size, (1.5, 2.0, 4.0))
    # The camera is 0.27 m ahead of the LiDAR and 0.08 m below; the ground is 1.73 m below that.
    np.testing.assert_allclose(label.location, (0, 1.65, 19.73), atol=1e-9)
    assert label.rotation_y == pytest.approx(-np.pi / 2)
    assert label.points > 100


@pytest.mark.parametrize(('covered', 'occluded'), [(0.1, 0), (0.4, 1), (0.7, 2), (0.97, 3)])
def test_occlusion_comes_from_the_covered_share(covered, occluded):
    # The rear of the car, 2 m wide at x = 18, as seen from about the origin, at half the way.
    edge = (1.0 - 2.0 * covered) / 2
    labels = label_of(scene_with(block(20, 0), walls=[wall(9.1, 3.0, edge)]))
    (label,) = (x for x in labels if x.type == 'Car')
    assert label.occluded == occluded


def test_a_hidden_object_has_no_label():
    assert label_of(scene_with(block(20, 0), walls=[wall(9, 6, -6)])) == []


def test_an_object_that_is_seen_but_has_no_point_is_dont_care():
    # Higher than the LiDAR's uppermost beam, 2 degrees, but within the picture.
    floating = box((2, 2, 1), (0, 0, 4.0), Material.PAINT, (0.5, 0.5, 0.5))
    (label,) = label_of(scene_with(Actor('Car', Motion(25, 0, 0), lambda t: floating)))
    assert label.type == 'DontCare'
    assert label.text().startswith('DontCare -1 -1 -10 ')
    assert label.text().endswith(' -1.00 -1.00 -1.00 -1000.00 -1000.00 -1000.00 -10.00')


def test_truncation_is_the_share_outside_the_image():
    # The image's left border is the line y = 620 / 720 x from the camera, which cuts the second
    # object through its centre.
    (inside,) = label_of(scene_with(block(20, 12)))
    (cut,) = label_of(scene_with(block(20, 620 / 720 * 19.73 + 0.06)))
    assert inside.truncated == 0
    assert cut.truncated == pytest.approx(0.5, abs=0.03)
    assert cut.bbox[0] == 0
    assert label_of(scene_with(block(20, 40))) == []
    assert label_of(scene_with(block(-20, 0))) == []


def test_an_object_beside_the_camera_is_cut_at_the_near_plane():
    # From 0.5 to 6.5 m ahead, 1.5 to 3 m to the left: its far end is in the image.
    (label,) = label_of(scene_with(block(3.5, 2.25, size=(6.0, 1.5, 2.5))))
    assert label.type == 'Car'
    assert label.points > 100
    assert 0.5 < label.truncated < 0.95
    # The far end: its inner edge, 6.23 m ahead of the camera and 1.4375 m to the left of it.
    np.testing.assert_allclose(label.bbox, (0, 0, 620 - 720 * 1.4375 / 6.23, 374), atol=0.01)


# ---- files ---------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp('mini') / 'kitti'
    parameters = KittiParameters(frames=3, val_frames=1, seed=0, image_step=8)
    return build_kitti(root, parameters, report=lambda text: None), parameters


def test_the_layout_is_kittis(dataset):
    root, _ = dataset
    assert (root / 'ImageSets' / 'train.txt').read_text() == '000000\n000001\n'
    assert (root / 'ImageSets' / 'val.txt').read_text() == '000002\n'
    assert (root / 'ImageSets' / 'trainval.txt').read_text() == '000000\n000001\n000002\n'
    assert (root / 'ImageSets' / 'test.txt').read_text() == ''
    for kind, ending in (
        ('velodyne', 'bin'),
        ('image_2', 'png'),
        ('calib', 'txt'),
        ('label_2', 'txt'),
    ):
        names = sorted(p.name for p in (root / 'training' / kind).iterdir())
        assert names == [f'00000{k}.{ending}' for k in range(3)]
    picture = Image.open(root / 'training' / 'image_2' / '000001.png')
    assert (picture.size, picture.mode) == ((1242, 375), 'RGB')


def test_files_hold_what_was_simulated(dataset, frames):
    root, _ = dataset
    for index, frame in enumerate(frames):
        name = f'00000{index}'
        points = np.fromfile(root / 'training' / 'velodyne' / f'{name}.bin', np.float32)
        np.testing.assert_array_equal(points.reshape(-1, 4), frame.points)
        lines = (root / 'training' / 'label_2' / f'{name}.txt').read_text().splitlines()
        assert len(lines) == len(frame.labels)
        for line, label in zip(lines, frame.labels, strict=True):
            words = line.split()
            assert len(words) == 15
            assert words[0] == label.type
            numbers = np.array(words[4:], float)
            expected = [*label.bbox, *label.size, *label.location, label.rotation_y]
            np.testing.assert_allclose(numbers, expected, atol=0.0051)


def test_calibration_files_are_read_as_kittis(dataset):
    root, _ = dataset
    text = (root / 'training' / 'calib' / '000000.txt').read_text()
    rows = [line.split(': ') for line in text.splitlines() if line]
    assert [name for name, _ in rows] == [
        'P0', 'P1', 'P2', 'P3', 'R0_rect', 'Tr_velo_to_cam', 'Tr_imu_to_velo'
    ]  # fmt: skip
    values = {name: np.array(numbers.split(), float) for name, numbers in rows}
    calib = kitti.calibration()
    np.testing.assert_allclose(values['P2'].reshape(3, 4), calib.projections[2])
    np.testing.assert_allclose(values['R0_rect'].reshape(3, 3), calib.rectification)
    np.testing.assert_allclose(values['Tr_velo_to_cam'].reshape(3, 4), calib.velo_to_cam)
    assert '-0.000000000000e+00' not in text.split('Tr_velo')[0]


def test_the_camera_stands_where_the_calibration_says():
    calib = kitti.calibration()
    lidar, camera = kitti.sensors(calib)
    points = np.random.default_rng(0).uniform([5, -5, -2], [40, 5, 2], (20, 3))
    expected = project(points, calib)
    pixels, depth = camera.project(camera.pose.invert(lidar.pose.apply(points)))
    np.testing.assert_allclose(pixels, expected[:, :2], atol=1e-9)
    np.testing.assert_allclose(depth, expected[:, 2], atol=1e-9)


def test_a_frame_is_the_same_in_other_processes_and_larger_data_sets(dataset, tmp_path):
    root, _ = dataset
    parameters = KittiParameters(frames=4, val_frames=2, seed=0, image_step=8)
    other = build_kitti(tmp_path / 'other', parameters, workers=2, report=lambda text: None)
    for name in ('000000', '000002'):
        for path in kitti.frame_files(root, name).values():
            assert path.read_bytes() == (other / path.relative_to(root)).read_bytes()


def test_the_generator_gives_what_its_version_stands_for(frames):
    """Trained weights and published counts belong to version 2: raise it if this must change."""
    assert GENERATOR_VERSION == 2
    assert [len(frame.points) for frame in frames] == [14707, 14929, 14775]
    labels = [''.join(label.text() + '\n' for label in frame.labels) for frame in frames]
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in labels]
    assert digests == ['b9b8894fda8a8d46', 'bc4bf1775dba17ca', 'e083dddb19b51e1c']


def test_seeds_differ(frames):
    other = kitti.simulate(seed=1, index=0, step=8)
    assert other.points.shape != frames[0].points.shape or (other.points != frames[0].points).any()


def test_a_complete_data_set_is_not_remade(dataset):
    root, parameters = dataset
    before = {p: p.stat().st_mtime_ns for p in root.rglob('training/*/*')}
    messages = []
    build_kitti(root, parameters, report=messages.append)
    assert messages == [f'{root}: all 3 frames are there']
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob('training/*/*')}


def test_a_killed_run_continues_with_what_is_missing(dataset):
    root, parameters = dataset
    lost = root / 'training' / 'label_2' / '000001.txt'
    kept = root / 'training' / 'velodyne' / '000000.bin'
    text, stamp = lost.read_text(), kept.stat().st_mtime_ns
    lost.unlink()
    build_kitti(root, parameters, report=lambda message: None)
    assert lost.read_text() == text
    assert kept.stat().st_mtime_ns == stamp


def test_frames_that_are_not_as_they_were_made_are_made_again(dataset):
    root, parameters = dataset
    cloud, picture = root / 'training/velodyne/000001.bin', root / 'training/image_2/000001.png'
    record = root / 'mini_contents' / '000000.json'
    before = {p: p.read_bytes() for p in root.rglob('*') if p.is_file()}
    assert {p.stem for p in record.parent.iterdir()} == {'000000', '000001', '000002'}
    stale = root / 'training/velodyne/.explain3d-elsewhere-77-0123abcd.tmp'
    stale.write_bytes(b'x')
    os.utime(stale, (0, 0))
    cloud.write_bytes(before[cloud][:-8] + b'otherone')  # As long as it was.
    picture.write_bytes(before[picture][:100])
    record.write_text('{')
    (root / 'ImageSets/val.txt').write_text('')
    said = []
    build_kitti(root, parameters, report=said.append)
    assert f'2 of 3 parts are not as they were made ({record} is damaged' in said[0]
    assert {p: p.read_bytes() for p in root.rglob('*') if p.is_file()} == before
    assert not stale.exists()
    record.unlink()
    assert missing_units(root, ['000000', '000001'], said.append) == ['000000']


@pytest.mark.parametrize('content', ['', '{"form', '[1]', '\xff'])
def test_a_broken_manifest_names_itself_and_the_remedy(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content, 'latin1')
    with pytest.raises(InputError, match=rf'{MANIFEST} is damaged.*Delete .* to make the data set'):
        build_kitti(tmp_path, KittiParameters(1, 0))


def test_other_parameters_are_refused_with_the_remedy(dataset):
    root, _ = dataset
    manifest = json.loads((root / MANIFEST).read_text())
    assert (manifest['frames'], manifest['seed'], manifest['fov_only']) == (3, 0, True)
    with pytest.raises(InputError, match=r"'seed': 0.*'seed': 1.*choose another folder"):
        build_kitti(root, KittiParameters(3, 1, seed=1, image_step=8))


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(InputError, match='not empty'):
        build_kitti(tmp_path, KittiParameters(1, 0))


def test_impossible_splits_are_refused(tmp_path):
    with pytest.raises(InputError, match='--val-frames'):
        build_kitti(tmp_path / 'new', KittiParameters(frames=2, val_frames=3))
    assert not (tmp_path / 'new').exists()


def test_the_example_of_the_documentation_runs():
    page = Path(__file__).parents[2] / 'docs' / 'mini_world.md'
    code = page.read_text().split('```python\n')[1].split('```')[0]
    names = {}
    exec(code, names)
    assert names['picture'].shape == (375, 1242, 3)
    assert len(names['sweep'].points) > 50000
    assert len(names['boxes']) > 5


def test_the_command_makes_a_data_set_and_reports_a_mistake(tmp_path, capsys):
    path = Path(__file__).parents[2] / 'tools' / 'make_mini_dataset.py'
    main = runpy.run_path(str(path))['main']
    out = tmp_path / 'mini'
    command = ['kitti', '--out', str(out), '--frames', '1', '--val-frames', '0']
    assert main(command) == 0
    assert (out / 'training' / 'label_2' / '000000.txt').exists()
    assert main([*command, '--seed', '3']) == 1
    assert 'choose another folder' in capsys.readouterr().err
