"""Batch normalisation's statistics after weights were averaged."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet3d')

from explain3d.adapters.mmdet3d.batch_statistics import refresh_batch_statistics


class Detector(nn.Module):
    """What is called of a detector: a preprocessor, and forward in the mode 'loss'."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2, momentum=0.3)
        self.head = nn.BatchNorm1d(2)

    def data_preprocessor(self, data, training):
        assert training
        return dict(inputs=data['inputs'] * 2)

    def forward(self, inputs, mode):
        assert mode == 'loss'
        return self.head(self.norm(inputs)).sum()


def test_statistics_are_those_of_the_data_and_nothing_else_changes():
    torch.manual_seed(0)
    model = Detector().eval()
    with torch.no_grad():
        model.norm.weight.fill_(3)
        model.norm.running_mean.fill_(7)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batches = [dict(inputs=torch.randn(8, 2) + 5) for _ in range(4)]
    refresh_batch_statistics(model, batches, epochs=2)
    seen = torch.stack([2 * batch['inputs'] for batch in batches])
    torch.testing.assert_close(model.norm.running_mean, seen.mean((0, 1)))
    torch.testing.assert_close(model.norm.running_var, seen.var(1).mean(0))
    # The layers after it see what it gives with the batch's own statistics.
    torch.testing.assert_close(
        model.head.running_var, torch.full((2,), 9 * 8 / 7), rtol=1e-3, atol=0
    )
    assert model.norm.num_batches_tracked == 8
    assert model.norm.momentum == 0.3
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
