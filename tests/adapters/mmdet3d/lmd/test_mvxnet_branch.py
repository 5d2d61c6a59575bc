"""Fusion at points, as in MVXNet: its stock voxel encoder, point fusion and sparse encoder."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d')

from mmdet3d.models.middle_encoders import SparseEncoder
from mmdet3d.models.voxel_encoders import voxel_encoder
from mmengine.registry import init_default_scope

import explain3d.adapters.mmdet3d  # noqa: F401 - spconv on a CPU
from explain3d.adapters.mmdet3d.lmd.proposals import proposed_seeds
from explain3d.lmd import Decomposition
from tests.helpers.toy_fusion import randomised

RANGE, VOXEL = [-8, -8, -2, 8, 8, 2], (1.0, 1.0, 0.5)


class DynamicScatter(nn.Module):
    """As mmcv's, which has no CPU kernel: mean or maximum by voxel, unseen by torch's dispatch."""

    def __init__(self, voxel_size, point_cloud_range, average_points):
        super().__init__()
        self.average_points = average_points

    def forward(self, points, coors):
        how = 'mean' if self.average_points else 'amax'
        voxels, number = coors.unique(dim=0, return_inverse=True)
        with torch._C.DisableTorchFunctionSubclass():
            index = number[:, None].expand(-1, points.shape[1])
            out = points.new_zeros(len(voxels), points.shape[1])
            return out.scatter_reduce(0, index, points, how, include_self=False), voxels


class Branch(nn.Module):
    """Points and images to a bird's-eye map; float32, in which the host projects points."""

    def __init__(self):
        super().__init__()
        self.pts_voxel_encoder = voxel_encoder.DynamicVFE(
            in_channels=4, feat_channels=[8, 8], with_cluster_center=True, with_voxel_center=True,
            voxel_size=VOXEL, point_cloud_range=RANGE, norm_cfg=dict(type='BN1d'),
            fusion_layer=dict(
                type='PointFusion', img_channels=[6, 6], pts_channels=8, mid_channels=6,
                out_channels=8, img_levels=[0, 1], align_corners=False,
            ),
        )  # fmt: skip
        self.middle = SparseEncoder(
            8, [9, 16, 16], order=('conv', 'norm', 'act'), base_channels=4, output_channels=4,
            encoder_channels=((4,), (6, 6)), encoder_paddings=((1,), (1, 1)),
        )  # fmt: skip

    def forward(self, features, coors, points, images, metas):
        rows, coors = self.pts_voxel_encoder(features, coors, points, images, metas)
        return self.middle(rows, coors, int(coors[-1, 0]) + 1)


@pytest.fixture
def branch(monkeypatch):
    init_default_scope('mmdet3d')
    monkeypatch.setattr(voxel_encoder, 'DynamicScatter', DynamicScatter)
    torch.manual_seed(0)
    return randomised(Branch().eval().requires_grad_(False))


def frame():
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(300, 4, generator=generator) * 14 - 7
    points[:, 2] /= 4
    cells = (points[:, :3] - torch.tensor(RANGE[:3])) / torch.tensor(VOXEL)
    coors = torch.cat([torch.zeros(300, 1), cells.flip(1)], 1).int()
    images = [torch.randn(1, 6, 12 // n, 16 // n, generator=generator) for n in (1, 2)]
    lidar2img = np.array([[0, -20, 0, 30], [0, 0, -20, 20], [0, 0, 0, 1], [0, 0, 0, 1.0]])
    meta = dict(lidar2img=lidar2img, input_shape=(48, 64), img_shape=(48, 64))
    return points, coors, [points], images, [meta]


def decomposed(model):
    args, seeds = frame(), proposed_seeds(model, 'sensors')
    plain = model(*args)
    with (
        torch.no_grad(),
        Decomposition(model, seeds, ['middle'], capture=['pts_voxel_encoder'], mode='check') as run,
    ):
        out = model(*args)
    assert torch.equal(plain, out)
    return run


def test_camera_and_lidar_are_told_apart_from_the_points_on(branch):
    run = decomposed(branch)
    assert run.residual < 1e-5
    for found in (run.captured['pts_voxel_encoder.0'], run.outputs['middle']):
        assert found.names == ('camera', 'lidar', 'bias')
        assert found.conservation_error() < 1e-5
        assert found.parts.flatten(1).any(1).all()


def test_a_sensor_that_provably_does_not_matter_has_no_part(branch):
    branch.pts_voxel_encoder.fusion_layer.img_transform[0].weight.zero_()
    found = decomposed(branch).outputs['middle']
    assert not found['camera'].any()
    assert found['lidar'].any()
    branch.pts_voxel_encoder.fusion_layer.pts_transform[0].weight.zero_()
    assert not decomposed(branch).outputs['middle']['lidar'].any()
