"""Rotated overlap and suppression against polygons clipped one by one, in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from explain3d.adapters.pcdet.cpu import overlap


def corners(box):
    x, y, _, length, width, _, yaw = box
    cos, sin = math.cos(yaw), math.sin(yaw)
    half = [(length / 2, width / 2), (-length / 2, width / 2)]
    half += [(-a, -b) for a, b in half]
    return [(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in half]


def clip(polygon, start, end):
    """The part of a polygon to the left of a line (Sutherland and Hodgman)."""

    def side(p):
        return (end[0] - start[0]) * (p[1] - start[1]) - (end[1] - start[1]) * (p[0] - start[0])

    out = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if side(a) >= 0:
            out.append(a)
        if side(a) * side(b) < 0:
            t = side(a) / (side(a) - side(b))
            out.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
    return out


def area(a, b):
    polygon, window = corners(a), corners(b)
    for start, end in zip(window, window[1:] + window[:1], strict=True):
        polygon = clip(polygon, start, end) if polygon else []
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs) / 2


def iou(a, b):
    shared = area(a, b)
    return shared / (a[3] * a[4] + b[3] * b[4] - shared)


def upright_iou(a, b):
    return iou([*a[:6], 0.0], [*b[:6], 0.0])


def greedy(boxes, threshold, measure):
    kept = []
    for i, box in enumerate(boxes):
        if all(measure(boxes[k], box) <= threshold for k in kept):
            kept.append(i)
    return kept


def some_boxes(count, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, 7, generator=generator)
    scale = torch.tensor([spread, spread, 2, 4, 2, 2, 2 * math.pi])
    return unit * scale + torch.tensor([0, 0, -1, 0.5, 0.5, 0.5, -math.pi])


@pytest.fixture
def pairs():
    return some_boxes(15, 8.0), some_boxes(11, 8.0, seed=1)


@pytest.mark.parametrize(
    ('function', 'oracle'),
    [
        (overlap.boxes_overlap_bev_gpu, area),
        (overlap.boxes_iou_bev_gpu, iou),
        (overlap.boxes_iou_bev_cpu, iou),
    ],
)
def test_all_pairs(pairs, function, oracle):
    a, b = pairs
    out = torch.full((len(a), len(b)), torch.nan)
    function(a, b, out)
    expected = [[oracle(i, j) for j in b.double().tolist()] for i in a.double().tolist()]
    torch.testing.assert_close(out.double(), torch.tensor(expected).double(), atol=2e-6, rtol=2e-6)
    assert (out > 0).any()
    assert (out == 0).any()


@pytest.mark.parametrize(
    ('function', 'oracle'),
    [
        (overlap.paired_boxes_overlap_bev_gpu, area),
        (overlap.boxes_aligned_overlap_bev_gpu, area),
        (overlap.boxes_aligned_iou_bev_cpu, iou),
    ],
)
def test_one_by_one(function, oracle):
    a, b = some_boxes(20, 3.0), some_boxes(20, 3.0, seed=1)
    out = torch.full((20, 1), torch.nan)
    function(a, b, out)
    rows = zip(a.double().tolist(), b.double().tolist(), strict=True)
    expected = torch.tensor([[oracle(i, j)] for i, j in rows]).double()
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=2e-6)
    assert (out > 0).sum() > 10


@pytest.mark.parametrize('block', [1, 3, 7, 256])
@pytest.mark.parametrize('threshold', [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    ('function', 'oracle'),
    [(overlap.nms_gpu, iou), (overlap.nms_normal_gpu, upright_iou)],
)
def test_suppression(function, oracle, threshold, block, monkeypatch):
    monkeypatch.setattr(overlap, '_BLOCK', block)
    monkeypatch.setattr(overlap, '_PAIRS_AT_ONCE', 50)
    boxes = some_boxes(60, 10.0, seed=2)
    keep = torch.full((60,), -7)
    kept = function(boxes, keep, threshold)
    assert keep[:kept].tolist() == greedy(boxes.double().tolist(), threshold, oracle)
    assert (keep[kept:] == -7).all()
    assert 0 < kept < 60


def test_heading_counts_in_one_suppression_only():
    crossed = torch.tensor([[0, 0, 0, 4, 1, 1, 0], [0, 0, 0, 4, 1, 1, math.pi / 2]])
    keep = torch.zeros(2, dtype=torch.int64)
    assert overlap.nms_gpu(crossed, keep, 0.5) == 2
    assert overlap.nms_normal_gpu(crossed, keep, 0.5) == 1


def test_chain_of_boxes_each_suppressed_by_one_that_is_suppressed():
    boxes = torch.zeros(50, 7)
    boxes[:, 0] = torch.arange(50.0) * 0.6
    boxes[:, 3:6] = 1.0
    keep = torch.zeros(50, dtype=torch.int64)
    kept = overlap.nms_gpu(boxes, keep, 0.2)
    assert keep[:kept].tolist() == list(range(0, 50, 2))


def test_boxes_that_are_not_finite_overlap_nothing_and_are_kept():
    boxes = some_boxes(3, 0.1)
    boxes[1, 3] = torch.inf
    boxes[2] = boxes[0]
    keep = torch.zeros(3, dtype=torch.int64)
    assert overlap.nms_gpu(boxes, keep, 0.1) == 2
    assert keep[:2].tolist() == [0, 1]
    out = torch.zeros(3, 3)
    overlap.boxes_iou_bev_gpu(boxes, boxes, out)
    assert not out[1].any()
    assert out[0, 2] == 1


def test_no_boxes():
    none = torch.zeros(0, 7)
    assert overlap.nms_gpu(none, torch.zeros(0, dtype=torch.int64), 0.1) == 0
    overlap.boxes_iou_bev_gpu(none, some_boxes(2, 1.0), torch.zeros(0, 2))


def test_a_graph_is_let_go():
    boxes = some_boxes(5, 2.0).requires_grad_()
    out = torch.zeros(5, 5)
    overlap.boxes_iou_bev_gpu(boxes, boxes, out)
    assert not out.requires_grad
