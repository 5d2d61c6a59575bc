"""Voxelisation without a table over the grid, against mmcv's operator."""

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import torch
from mmdet3d.models.data_preprocessors.voxelize import VoxelizationByGridShape

from explain3d.adapters.common.voxels import hard_voxels
from explain3d.adapters.mmdet3d.voxels import fast_layer


def stock(max_points, max_voxels=5000):
    return VoxelizationByGridShape(
        point_cloud_range=tiny.RANGE, voxel_size=tiny.VOXEL, max_num_points=max_points,
        max_voxels=max_voxels,
    )  # fmt: skip


@pytest.mark.parametrize('max_points', [1, 3, 10])
@pytest.mark.parametrize('count', [8, 800, 6000])
def test_voxels_are_those_of_the_stock_operator(max_points, count):
    cloud = torch.from_numpy(tiny.cloud(1, count))
    cloud[::7] *= 3  # Some points lie outside.
    expected = stock(max_points)(cloud)
    found = hard_voxels(cloud, tuple(tiny.VOXEL), tuple(tiny.RANGE), max_points)
    assert len(found[0]) > count // 20
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_an_empty_cloud_has_no_voxels():
    voxels, coords, counts = hard_voxels(torch.zeros(0, 4), tuple(tiny.VOXEL), tuple(tiny.RANGE), 5)
    assert voxels.shape == (0, 5, 4)
    assert coords.shape == (0, 3)
    assert counts.shape == (0,)


def test_dynamic_voxelisation_is_left_alone():
    assert fast_layer(stock(-1)) is None
    assert fast_layer(stock(5)) is not None
