"""Intersection over union against counting cell by cell."""

import math

import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.metrics.bev_iou import intersection_and_union, iou, ring_masks

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 1.0, -0.1]])
TARGET = torch.tensor([[1, 1, 0], [0, 1, 0]])


def test_counts_by_hand():
    # Predicted: 2.0, 0.5, 1.0; of these the target has the first and the last.
    assert intersection_and_union(LOGITS, TARGET).tolist() == [[2, 4]]


def test_invalid_cells_count_nowhere():
    valid = torch.tensor([[False, True, True], [True, True, True]])
    assert intersection_and_union(LOGITS, TARGET, valid).tolist() == [[1, 3]]


def test_threshold_is_a_probability():
    # sigmoid(0.5) = 0.62, sigmoid(1) = 0.73: only 2.0 is above 0.8.
    assert intersection_and_union(LOGITS, TARGET, threshold=0.8).tolist() == [[1, 3]]
    edge = torch.zeros(1, 1)
    assert intersection_and_union(edge, edge + 1).tolist() == [[0, 1]]


def test_regions_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 13, 17, generator=generator)
    target = (torch.rand(1, 13, 17, generator=generator) < 0.3).to(torch.uint8)
    valid = torch.rand(1, 13, 17, generator=generator) < 0.8
    x, z = torch.linspace(-8, 8, 17, dtype=torch.double), torch.linspace(-6, 6, 13).double()
    rings = ((0, 3), (3, 7.5))
    counts = intersection_and_union(logits, target, valid, ring_masks(x, z, rings))
    for row, (low, high) in zip(counts.tolist(), ((0, math.inf), *rings), strict=True):
        both = either = 0
        for i in range(13):
            for j in range(17):
                inside = low <= math.sqrt(float(x[j]) ** 2 + float(z[i]) ** 2) < high
                if inside and valid[0, i, j]:
                    predicted, there = logits[0, i, j] > 0, target[0, i, j] == 1
                    both += int(predicted and there)
                    either += int(predicted or there)
        assert row == [both, either]


def test_rings_share_no_cell_and_leave_the_corners():
    axis = torch.arange(-49.5, 50, 1.0)
    masks = ring_masks(axis, axis, ((0, 20), (20, 35), (35, 50)))
    assert masks.sum(0).max() == 1
    assert not masks[:, 0, 0].any()
    # pi 20^2 cells of a square metre, to a percent.
    assert masks[0].sum().item() == pytest.approx(math.pi * 400, rel=0.01)


def test_ratio_of_sums_and_nothing_over_nothing():
    ratio = iou(torch.tensor([[1, 4], [0, 0], [0, 3]]))
    assert ratio[0] == 0.25
    assert ratio[1].isnan()
    assert ratio[2] == 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match='of one shape'):
        intersection_and_union(LOGITS, TARGET[:1])
    with pytest.raises(InputError, match=r'threshold in \(0, 1\)'):
        intersection_and_union(LOGITS, TARGET, threshold=1.0)
