"""tools/fit_occam_density.py on clouds whose density is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet3d')

import torch
from mmengine.config import Config

from explain3d.methods.occam_sampling import VoxelSampling, voxel_counts

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location('fit_density', ROOT / 'tools/fit_occam_density.py')
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def cloud(per_voxel, distances=range(1, 50), copies=6):
    """Voxels of 0.2 m at each distance with ``per_voxel(distance)`` points."""
    points = []
    for distance in distances:
        for height in range(copies):
            center = [distance + 0.1, 0.1, height + 0.1]
            points += [center] * per_voxel(distance)
    return np.array(points, np.float32)


def fitted(monkeypatch, clouds, *options):
    monkeypatch.setattr(tool, 'clouds', lambda args: clouds)
    tool.main(['a config', *options])


def test_points_are_counted_by_voxel_and_distance():
    points = np.array([[3.0, 4, 0, 9], [3.05, 4.05, 0.1, 9], [-0.01, 0, 0, 9], [0.01, 0, 0, 9]])
    distance, counts = voxel_counts(points, 0.2)
    order = np.argsort(distance)
    assert counts[order].tolist() == [1, 1, 2]
    assert distance[order] == pytest.approx([0.01, 0.01, (5 + np.hypot(3.05, 4.05)) / 2])
    assert counts.sum() == len(points)


def test_a_known_density_is_found(monkeypatch, tmp_path, capsys):
    """Voxels of 20 points up to 25 m and of 4 beyond keep 2 points with p = 0.1 and 0.5."""
    step = cloud(lambda d: 20 if d < 25 else 4)
    out = tmp_path / 'fragment.py'
    fitted(monkeypatch, [step, step], '--target', '2', '--degree', '9', '--out', str(out))
    config = Config.fromfile(out).benchmark.methods.OccAM
    sampling = VoxelSampling(config.voxel_size, tuple(config.density), tuple(config.bounds))
    places = torch.tensor([[10.0, 0, 0], [40.0, 0, 0]])
    assert sampling.probability(places).tolist() == pytest.approx([0.1, 0.5], abs=0.06)
    assert 'fit_occam_density.py' in out.read_text()
    assert f'2 frames, {2 * 49 * 6} voxels' in capsys.readouterr().out


def test_a_constant_density_keeps_its_target(monkeypatch, tmp_path):
    out = tmp_path / 'fragment.py'
    even = cloud(lambda _: 5)
    fitted(monkeypatch, [even], '--target', '2', '--degree', '0', '--out', str(out))
    assert Config.fromfile(out).benchmark.methods.OccAM.density == pytest.approx([0.4])
    fitted(monkeypatch, [even], '--target', '50', '--bounds', '0.1', '0.8', '--out', str(out))
    method = Config.fromfile(out).benchmark.methods.OccAM
    sampling = VoxelSampling(density=tuple(method.density), bounds=tuple(method.bounds))
    assert sampling.probability(torch.tensor([[20.0, 0, 0]])).item() == pytest.approx(0.8, rel=1e-3)


def test_a_voxel_is_kept_with_the_authors_probability_at_their_distance(monkeypatch, tmp_path):
    """Voxels of 30, 10 and 5 points: at 25 m p is 0.15, elsewhere as many points are kept."""
    rings = cloud(lambda d: 30 if d < 15 else 10 if d < 35 else 5)
    out = tmp_path / 'fragment.py'
    options = '--degree', '12', '--out', str(out)
    places = torch.tensor([[8.0, 0, 0], [25.0, 0, 0], [43.0, 0, 0]])
    for more in [(), ('--keep', '0.3', '--at', '43')]:
        fitted(monkeypatch, [rings], *options, *more)
        method = Config.fromfile(out).benchmark.methods.OccAM
        sampling = VoxelSampling(density=tuple(method.density), bounds=tuple(method.bounds))
        assert sampling.probability(places).tolist() == pytest.approx([0.05, 0.15, 0.3], abs=0.03)


@pytest.mark.parametrize(
    ('clouds', 'options', 'message'),
    [
        ([], [], 'received none'),
        ([np.zeros((0, 4), np.float32)], [], 'received none'),
        ([cloud(lambda _: 3, [25])], [], 'more than 2 distances'),
        ([cloud(lambda _: 3)], ['--bounds', '0', '0.5'], '0 < low <= high'),
        ([cloud(lambda _: 3)], ['--voxel-size', '0'], 'voxel_size > 0'),
        ([cloud(lambda _: 3)], ['--at', '80'], 'within 2.5 m of --at 80 m, received none'),
    ],
)
def test_what_cannot_be_fitted_is_said(monkeypatch, clouds, options, message):
    with pytest.raises(SystemExit, match=message):
        fitted(monkeypatch, clouds, *options)


def test_the_frames_are_those_of_the_configuration(monkeypatch, capsys):
    """With the stock data set in its place, points come through the test pipeline."""
    import mmdet3d.registry

    class Frames:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return dict(inputs=dict(points=torch.from_numpy(cloud(lambda d: d % 3 + index + 1))))

    monkeypatch.setattr(mmdet3d.registry.DATASETS, 'build', lambda _: Frames())
    config = ROOT / 'configs/benchmark/benchmark_second_miniworld.py'
    tool.main([str(config), '--frames', '2'])
    assert f'2 frames, {2 * 49 * 6} voxels' in capsys.readouterr().out
