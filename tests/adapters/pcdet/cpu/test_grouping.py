"""Gathering, sampling and scattering against their definitions, gradients against autograd."""

from __future__ import annotations

import pytest
import torch

from explain3d.adapters.pcdet.cpu import grouping, ingroup, sampling, scatter
from explain3d.core.errors import InputError


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_grouping_and_its_gradient():
    counts, centres = torch.tensor([4, 3]), torch.tensor([2, 3])
    features = randn(7, 5).requires_grad_()
    idx = torch.tensor([[0, 3], [1, 1], [2, 0], [0, 0], [1, 2]], dtype=torch.int32)
    out = torch.full((5, 5, 2), torch.nan, dtype=torch.float64)
    grouping.group_points_wrapper(2, 5, 5, 2, features.detach(), counts, idx, centres, out)
    expected = torch.zeros_like(out)
    for m in range(5):
        for s in range(2):
            expected[m, :, s] = features[(0 if m < 2 else 4) + idx[m, s]]
    torch.testing.assert_close(out, expected.detach(), atol=0, rtol=0)

    weights = randn(5, 5, 2, seed=1)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), features)
    grad = torch.zeros(7, 5, dtype=torch.float64)
    grouping.group_points_grad_wrapper(2, 5, 5, 7, 2, weights, idx, centres, counts, grad)
    torch.testing.assert_close(grad, wanted)


def test_interpolation_and_its_gradient():
    features, weight = randn(6, 4).requires_grad_(), randn(3, 3, seed=1).abs()
    idx = torch.tensor([[0, 5, 2], [3, 3, 1], [4, 0, 0]], dtype=torch.int32)
    out = torch.full((3, 4), torch.nan, dtype=torch.float64)
    grouping.three_interpolate_wrapper(features.detach(), idx, weight, out)
    expected = torch.zeros_like(out)
    for n in range(3):
        expected[n] = sum(weight[n, k] * features[idx[n, k]] for k in range(3))
    torch.testing.assert_close(out, expected.detach())

    weights = randn(3, 4, seed=2)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), features)
    grad = torch.zeros(6, 4, dtype=torch.float64)
    grouping.three_interpolate_grad_wrapper(weights, idx, weight, grad)
    torch.testing.assert_close(grad, wanted)


def farthest(points, samples):
    picked = [0]
    for _ in range(samples - 1):
        nearest = [min(((p - points[k]) ** 2).sum() for k in picked) for p in points]
        picked.append(max(range(len(points)), key=lambda i: (nearest[i], -i)))
    return picked


@pytest.mark.parametrize('samples', [1, 6, 12])
def test_farthest_points(samples):
    xyz = randn(2, 12, 3)
    out = torch.full((2, samples), -1, dtype=torch.int32)
    temp = torch.full((2, 12), 1e10, dtype=torch.float64)
    sampling.farthest_point_sampling_wrapper(2, 12, samples, xyz, temp, out)
    assert out.tolist() == [farthest(frame, samples) for frame in xyz]


def test_farthest_points_of_stacked_frames():
    xyz = randn(17, 3)
    out = torch.full((9,), -1, dtype=torch.int32)
    temp = torch.full((17,), 1e10, dtype=torch.float64)
    counts, samples = torch.tensor([10, 7]), torch.tensor([4, 5])
    sampling.stack_farthest_point_sampling_wrapper(xyz, temp, counts, out, samples)
    expected = farthest(xyz[:10], 4) + [10 + i for i in farthest(xyz[10:], 5)]
    assert out.tolist() == expected


def test_fewer_points_than_samples_repeat_the_first():
    out = torch.full((1, 4), -1, dtype=torch.int32)
    xyz = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
    sampling.farthest_point_sampling_wrapper(1, 2, 4, xyz, torch.full((1, 2), 1e10), out)
    assert out.tolist() == [[0, 1, 0, 0]]


def test_samples_of_no_points():
    with pytest.raises(InputError, match='3 samples'):
        sampling.farthest_point_sampling_wrapper(
            1, 0, 3, torch.zeros(1, 0, 3), torch.zeros(1, 0), torch.zeros(1, 3)
        )


def test_numbers_within_groups():
    groups = torch.tensor([5, 0, 5, 2, 5, 0])
    out = torch.full((6,), -1)
    ingroup.forward(groups, out)
    assert out.tolist() == [0, 0, 1, 0, 2, 1]


def test_scattered_means_and_maxima_and_their_gradients():
    values, index = randn(9, 3).requires_grad_(), torch.tensor([4, 0, 4, 2, 2, 2, 0, 4, 4])
    mean = scatter.scatter_mean(values, index, dim=0)
    top, rows = scatter.scatter_max(values, index, dim=0)
    for group in range(5):
        members = (index == group).nonzero()[:, 0]
        if not len(members):
            assert not mean[group].any()
            assert not top[group].any()
            assert (rows[group] == 9).all()
            continue
        torch.testing.assert_close(mean[group], values[members].mean(dim=0))
        torch.testing.assert_close(top[group], values[members].amax(dim=0))
        assert rows[group].tolist() == members[values[members].argmax(dim=0)].tolist()
    assert torch.autograd.gradcheck(lambda v: scatter.scatter_mean(v, index, dim=0), values)
    assert torch.autograd.gradcheck(lambda v: scatter.scatter_max(v, index, dim=0)[0], values)


def test_one_of_equal_maxima_gets_the_gradient():
    values = torch.ones(3, 1, requires_grad=True)
    scatter.scatter_max(values, torch.zeros(3, dtype=torch.int64), dim=0)[0].sum().backward()
    assert values.grad[:, 0].tolist() == [1, 0, 0]
