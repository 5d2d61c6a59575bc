"""Rows that stand for all rows of a layer."""

import pytest
import torch

from explain3d.core.nmf_sample import EVEN, RowSampler


def features_of(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    return draw.clamp(min=0) * torch.logspace(-2, 1, rows, dtype=torch.float64)[:, None]


def test_each_row_is_taken_as_often_as_its_norm_says_and_scaled_back():
    F = features_of(50)
    sampler = RowSampler(F[None], [50])
    size = 100_000
    rows = sampler.at((torch.arange(size)[None] + 0.5) / size)[0]
    norms = F.norm(dim=1)
    assert (norms == 0).any()
    weights = (norms + EVEN * norms[norms > 0].mean()) * (norms > 0)
    expected = weights / weights.sum() * size
    counted = torch.bincount(rows, minlength=50)
    torch.testing.assert_close(counted.double(), expected, rtol=0, atol=1.01)
    # Taken often enough, the part has the Gram matrix of all rows, and so every error's value.
    part = sampler.part([size])[0]
    torch.testing.assert_close(part.T @ part, F.T @ F, rtol=1e-3, atol=1e-3)


def test_a_part_tells_an_error_better_than_every_nth_row():
    F = features_of(4000)
    truth = F.square().sum()
    ours, strided = [], []
    for seed in range(10):
        shuffled = F[torch.randperm(4000, generator=torch.Generator().manual_seed(seed))]
        part = RowSampler(shuffled[None], [4000]).part([250])
        ours.append(part.square().sum() / truth - 1)
        strided.append(16 * shuffled[::16].square().sum() / truth - 1)
    assert torch.stack(ours).square().mean() < 0.5 * torch.stack(strided).square().mean()
    assert torch.stack(ours).mean().abs() < 0.1


def test_padding_and_zero_rows_are_never_taken_and_change_nothing():
    F, other = features_of(40), features_of(70, 1)
    F[::2] = 0
    both = torch.nn.utils.rnn.pad_sequence([F, other], batch_first=True)
    sizes = [25, 31]
    part = RowSampler(both, [40, 70]).part(sizes)
    for b, frame in enumerate([F, other]):
        alone = RowSampler(frame[None], [len(frame)]).part([sizes[b]])[0]
        torch.testing.assert_close(part[b, : sizes[b]], alone)
        assert (part[b, : sizes[b]].norm(dim=1) > 0).all()
        assert not part[b, sizes[b] :].any()


@pytest.mark.parametrize('place', [0.0, 1 - 1e-17, 1.0])
def test_the_ends_lie_on_rows(place):
    F = features_of(10)
    F[[0, -1]] = 0
    row = RowSampler(F[None], [10]).at(torch.tensor([[place]], dtype=torch.float64)).item()
    assert row == 1 if place == 0 else row in (8, 9)
