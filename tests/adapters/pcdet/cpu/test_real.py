"""The CPU mode on a real OpenPCDet, where one is on the path: it imports, and gradients flow."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import torch

from explain3d.adapters.pcdet.cpu import cpu_mode


def real_openpcdet():
    spec = PathFinder.find_spec('pcdet')
    return spec is not None and (Path(spec.origin).parent / 'ops/roiaware_pool3d').is_dir()


pytestmark = pytest.mark.skipif(
    not real_openpcdet(), reason='no OpenPCDet on the path: put a checkout of it on PYTHONPATH'
)


@pytest.fixture(scope='module')
def ops():
    with cpu_mode():
        for name in ('pcdet.models', 'pcdet.datasets'):
            importlib.import_module(name)
        yield lambda name: importlib.import_module(f'pcdet.ops.{name}')


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_its_evaluation_imports(ops):
    name = 'pcdet.datasets.kitti.kitti_object_eval_python.eval'
    assert importlib.import_module(name).rotate_iou_gpu_eval


def test_suppression_through_its_own_function(ops):
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0], [0.1, 0, 0, 4, 2, 2, 0], [9, 9, 0, 4, 2, 2, 1]])
    nms = ops('iou3d_nms.iou3d_nms_utils').nms_gpu
    kept, _ = nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
    assert kept.tolist() == [1, 2]


@pytest.mark.parametrize('method', ['max', 'avg'])
def test_gradient_of_roi_aware_pooling(ops, method):
    pool = ops('roiaware_pool3d.roiaware_pool3d_utils').RoIAwarePool3d(2, 8)
    rois = torch.tensor([[0.0, 0, 0, 3, 3, 3, 0.3], [1, 1, 0, 2, 2, 4, 1.0]])
    features = randn(40, 3).requires_grad_()
    out = pool(rois, randn(40, 3), features, pool_method=method)
    (grad,) = torch.autograd.grad(out.sum(), features)
    # A sum over voxels of maxima or of means is linear in the features, with this gradient.
    torch.testing.assert_close((grad * features).sum(), out.sum())
    assert grad.any()


def test_gradient_of_grouping(ops):
    utils = ops('pointnet2.pointnet2_stack.pointnet2_utils')
    xyz, features = randn(30, 3), randn(30, 4).requires_grad_()
    counts, centres = torch.tensor([30]).int(), torch.tensor([5]).int()
    query = utils.QueryAndGroup(0.9, 4)
    out, _ = query(xyz, counts, xyz[:5].contiguous(), centres, features)
    (grad,) = torch.autograd.grad(out[:, 3:].sum(), features)
    torch.testing.assert_close((grad * features).sum(), out[:, 3:].sum())
    assert grad.any()
