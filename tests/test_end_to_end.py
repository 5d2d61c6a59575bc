"""The shipped weights, the shipped configs and the commands, on frames they have not seen."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet3d')

from mmdet3d.apis import init_model
from mmengine.config import Config

import explain3d
from explain3d.core.boxes import iou_3d, points_in_boxes
from explain3d.core.results import ResultStore

ROOT = Path(__file__).parents[1]
TARGETS = ('all', 'h', 'yaw')


def run_test(name: str, *options: str) -> dict:
    """Runs tools/test.py in this process and returns the metrics."""
    spec = importlib.util.spec_from_file_location('explain3d_test_tool', ROOT / 'tools/test.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main([str(ROOT / 'configs/ffam' / name), *options])


@pytest.fixture(scope='module', params=['second', 'centerpoint'])
def mini_run(request, mini_kitti, tmp_path_factory):
    """Explanations of two simulated frames, the metrics, and the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # The weights' path is relative to the repository.
        patch.setenv('EXPLAIN3D_MINI_DATA', str(mini_kitti))
        metrics = run_test(
            f'ffam_{request.param}_miniworld.py',
            f'--work-dir={folder / "run"}',
            f'--out-dir={folder}',
            '--cfg-options',
            'custom_hooks.0.targets=all,h,yaw',
        )
    return list(ResultStore(folder)), metrics, folder


def test_every_frame_has_a_file_and_a_picture(mini_run):
    explanations, _, folder = mini_run
    assert [e.frame_id for e in explanations] == ['000200', '000201']
    pictures = sorted((folder / 'pictures').glob('*.png'))
    assert [p.name for p in pictures] == ['000200_sheet.png', '000201_sheet.png']


def test_maps_are_sound(mini_run):
    for e in mini_run[0]:
        assert e.targets == TARGETS
        for name in TARGETS:
            saliency = e.maps.saliency[name]
            assert saliency.shape == (len(e.detections), len(e.points))
            assert torch.isfinite(saliency).all()
            assert (saliency >= 0).all()
            assert (saliency.amax(1) > 0).all()


def test_detections_are_those_of_real_objects(mini_run):
    """Weights that really detect: two of three annotated cars with points are found."""
    found = annotated = 0
    for e in mini_run[0]:
        cars = e.ground_truth[e.ground_truth.labels == 2]
        cars = cars[points_in_boxes(e.points, cars.boxes).sum(1) >= 20]
        detected = e.detections[e.detections.labels == 2]
        found += int((iou_3d(cars.boxes, detected.boxes) > 0.5).any(1).sum())
        annotated += len(cars)
    assert annotated > 0
    assert found >= 2 / 3 * annotated


def test_saliency_is_at_the_object(mini_run):
    """Over the detections the map is denser near the box than elsewhere, by far."""
    inside = []
    for e in mini_run[0]:
        wide = e.detections.boxes.clone()
        wide[:, 3:6] *= 1.5
        near = points_in_boxes(e.points, wide)
        share = (e.saliency * near).sum(1) / e.saliency.sum(1)
        chance = near.float().mean(1)
        inside.append(share / chance.clamp(min=1e-6))
    assert torch.cat(inside).median() > 10


def test_attributes_have_maps_of_their_own(mini_run):
    for e in mini_run[0]:
        height, yaw = e.maps.saliency['h'], e.maps.saliency['yaw']
        assert not torch.allclose(height, yaw)


def test_metrics_of_the_host_are_there(mini_run):
    assert any(re.search('Car_3D_AP40_moderate_strict', key) for key in mini_run[1])


def test_second_run_takes_the_files(mini_kitti, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('EXPLAIN3D_MINI_DATA', str(mini_kitti))
    options = (
        f'--work-dir={tmp_path / "run"}',
        f'--out-dir={tmp_path / "out"}',
        '--cfg-options',
        'custom_hooks.0.targets=all',
        'custom_hooks.0.select.top_n=3',
    )
    run_test('ffam_second_miniworld.py', *options)
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out').glob('*.npz')}
    assert len(stamps) == 2
    damaged = sorted(stamps)[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    run_test('ffam_second_miniworld.py', *options)
    assert damaged.read_bytes() == content
    untouched = sorted(stamps)[1]
    assert untouched.stat().st_mtime_ns == stamps[untouched]


@pytest.mark.real_data
def test_real_frames(real_kitti, monkeypatch):
    """The real-input weights find cars in real frames, and the map is at the car."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('EXPLAIN3D_KITTI_MINI', str(real_kitti))
    config = Config.fromfile(ROOT / 'configs/ffam/ffam_second_kitti-mini.py')
    model = init_model(config, config.load_from, device='cpu')
    frame = (real_kitti / 'ImageSets/val.txt').read_text().split()[0]
    cloud = real_kitti / f'training/velodyne_reduced/{frame}.bin'
    e = explain3d.explain(
        model, str(cloud), targets=['all', 'score'], select=dict(score_thr=0.3, classes=['Car'])
    )
    assert len(e.detections) > 0
    assert e.frame_id == frame
    wide = e.detections.boxes.clone()
    wide[:, 3:6] *= 1.5
    near = points_in_boxes(e.points, wide)
    share = (e.saliency * near).sum(1) / e.saliency.sum(1)
    assert (share / near.float().mean(1).clamp(min=1e-6)).median() > 10
