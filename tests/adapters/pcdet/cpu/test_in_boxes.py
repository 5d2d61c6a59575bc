"""Points in boxes, and pooling in their voxels, against loops over points in float64."""

from __future__ import annotations

import math

import pytest
import torch

from explain3d.adapters.pcdet.cpu import in_boxes, roiaware
from explain3d.adapters.pcdet.cpu.in_boxes import points_in_boxes_cpu, points_in_boxes_gpu


def local_of(point, box):
    x, y = point[0] - box[0], point[1] - box[1]
    cos, sin = math.cos(box[6]), math.sin(box[6])
    return cos * x + sin * y, cos * y - sin * x, point[2] - box[2]


def inside(point, box, margin):
    x, y, z = local_of(point, box)
    return abs(z) <= box[5] / 2 and abs(x) < box[3] / 2 + margin and abs(y) < box[4] / 2 + margin


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(200, 3, generator=generator) * torch.tensor([8.0, 8, 3])
    boxes = torch.rand(6, 7, generator=generator) * torch.tensor([8.0, 8, 2, 3, 2, 2, 6])
    boxes[:, 3:6] += 1
    return points, boxes


@pytest.mark.parametrize('pairs', [1 << 22, 300])
def test_every_pair_on_the_cpu(scene, pairs, monkeypatch):
    monkeypatch.setattr(in_boxes, '_PAIRS_AT_ONCE', pairs)
    points, boxes = scene
    out = torch.full((6, 200), 7, dtype=torch.int32)
    points_in_boxes_cpu(boxes, points, out)
    expected = [[int(inside(p, b, 1e-2)) for p in points.tolist()] for b in boxes.tolist()]
    assert out.tolist() == expected
    assert out.any(dim=1).all()


@pytest.mark.parametrize('pairs', [1 << 22, 300])
def test_first_box_of_each_point_as_on_a_gpu(scene, pairs, monkeypatch):
    monkeypatch.setattr(in_boxes, '_PAIRS_AT_ONCE', pairs)
    points, boxes = scene
    frames = torch.stack([points, points + 0.5]), torch.stack([boxes, boxes.flip(0)])
    out = torch.full((2, 200), -1, dtype=torch.int32)
    points_in_boxes_gpu(frames[1], frames[0], out)
    for frame in range(2):
        for i, point in enumerate(frames[0][frame].tolist()):
            hits = [k for k, b in enumerate(frames[1][frame].tolist()) if inside(point, b, 1e-5)]
            assert out[frame, i] == (hits[0] if hits else -1)
    assert out.max() > 0


def test_margins_and_faces():
    box = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]])
    points = torch.tensor([[1.005, 0, 0], [1.02, 0, 0], [1.0, 0, 0], [0, 0, 1.0], [0, 0, 1.005]])
    out = torch.zeros(1, 5, dtype=torch.int32)
    points_in_boxes_cpu(box, points, out)
    assert out[0].tolist() == [1, 0, 1, 1, 0]
    out = torch.full((1, 5), -1, dtype=torch.int32)
    points_in_boxes_gpu(box[None], points[None], out)
    assert out[0].tolist() == [-1, -1, 0, 0, -1]


def test_no_boxes_and_no_points(scene):
    points, boxes = scene
    out = torch.full((1, 200), -1, dtype=torch.int32)
    points_in_boxes_gpu(boxes[None, :0], points[None], out)
    assert (out == -1).all()
    points_in_boxes_cpu(boxes, points[:0], torch.zeros(6, 0, dtype=torch.int32))


def lists_of(points, boxes, cells, most):
    """Point indices of each voxel, by loops."""
    lists = {}
    for k, box in enumerate(boxes.double().tolist()):
        for i, point in enumerate(points.double().tolist()):
            if inside(point, box, 1e-5):
                size = zip(local_of(point, box), box[3:6], cells, strict=True)
                voxel = tuple(min(max(int((p + s / 2) / (s / n)), 0), n - 1) for p, s, n in size)
                if len(lists.setdefault((k, *voxel), [])) < most:
                    lists[(k, *voxel)].append(i)
    return lists


def pool(points, boxes, features, cells, most, method):
    shape = (len(boxes), *cells)
    pooled = torch.zeros(*shape, features.shape[1], dtype=features.dtype)
    argmax = torch.full(pooled.shape, -5, dtype=torch.int32)
    lists = torch.zeros(*shape, most + 1, dtype=torch.int32)
    roiaware.forward(boxes, points, features, argmax, lists, pooled, method)
    return pooled, argmax, lists


@pytest.mark.parametrize('most', [2, 100])
@pytest.mark.parametrize('method', [0, 1])
def test_pooling_and_its_gradient(scene, method, most):
    points, boxes = scene
    cells = (3, 2, 2)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, 4, generator=generator).double().requires_grad_()
    pooled, argmax, lists = pool(points, boxes, features.detach(), cells, most, method)

    expected = torch.zeros(pooled.shape, dtype=torch.float64)
    voxels = lists_of(points, boxes, cells, most)
    for voxel, indices in voxels.items():
        values = features[indices]
        expected[voxel] = values.amax(dim=0) if method == 0 else values.mean(dim=0)
        assert lists[voxel].tolist()[: len(indices) + 1] == [len(indices), *indices]
        if method == 0:
            best = features[indices].argmax(dim=0).tolist()
            assert argmax[voxel].tolist() == [indices[i] for i in best]
    empty = lists[..., 0] == 0
    assert int(empty.sum()) == empty.numel() - len(voxels)
    assert max(len(indices) for indices in voxels.values()) > 1
    torch.testing.assert_close(pooled, expected.detach())
    if method == 0:
        assert (argmax[empty] == -1).all()

    weights = torch.randn(pooled.shape, generator=generator).double()
    (wanted,) = torch.autograd.grad((expected * weights).sum(), features)
    received = torch.zeros_like(wanted)
    roiaware.backward(lists, argmax, weights, received, method)
    torch.testing.assert_close(received, wanted)
    assert wanted.any()


def test_pooling_without_points_in_any_box(scene):
    points, boxes = scene
    pooled, argmax, lists = pool(points + 100, boxes, torch.ones(200, 2), (2, 2, 2), 3, 0)
    assert not pooled.any()
    assert (argmax == -1).all()
    assert not lists.any()
    grad = torch.zeros(200, 2)
    roiaware.backward(lists, argmax, torch.ones_like(pooled), grad, 0)
    assert not grad.any()


def test_first_of_equal_maxima_gets_the_gradient():
    box = torch.tensor([[0.0, 0, 0, 2, 2, 2, 0]])
    pooled, argmax, _ = pool(torch.zeros(3, 3), box, torch.ones(3, 1), (1, 1, 1), 5, 0)
    assert argmax.item() == 0
    assert pooled.item() == 1
