"""Models that may be given to ``decompose``, and that they are left as found."""

import copy

import pytest
import tiny_fusion as tiny
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import explain3d
from explain3d.core.errors import UnknownNameError
from explain3d.lmd import Seed


class Checkpointed(nn.Module):
    """A part whose activations are computed again in the backward pass."""

    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.reentrant = nn.Conv2d(3, 3, 1), reentrant

    def forward(self, x):
        return checkpoint(lambda y: self.inner(y).relu(), x, use_reentrant=self.reentrant)


def network(reentrant=True):
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(3), Checkpointed(reentrant), nn.Dropout(0.5)
    return nn.Sequential(nn.Conv2d(4, 3, 1), *middle, nn.Conv2d(3, 2, 1))


def state_of(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        [value.tolist() for value in model.state_dict().values()],
    )


SEEDS = [Seed('0', split=dict(a=1, b=3))]


@pytest.mark.parametrize('reentrant', [True, False])
def test_wrapped_networks_in_training_mode_are_left_as_found(reentrant):
    net, x = network(reentrant).train(), torch.randn(2, 4, 5, 5)
    net[1].eval()
    models = net, nn.DataParallel(net), torch.compile(net, backend='eager')
    before = state_of(net)
    for model in models:
        found = explain3d.decompose(model, x, SEEDS, ['4'])
        assert state_of(net) == before
        with torch.no_grad():
            expected = copy.deepcopy(net).eval()(x)
        for frame, value in zip(found, expected, strict=True):
            torch.testing.assert_close(frame.output.value, value)
            assert frame.output.conservation_error() < 1e-6


def test_a_network_that_fails_is_left_as_found():
    net = network().train()
    net[4] = nn.Conv2d(7, 2, 1)  # Does not fit what comes before it.
    before = state_of(net)
    with pytest.raises(RuntimeError, match='7 channels'):
        explain3d.decompose(net, torch.randn(2, 4, 5, 5), SEEDS, ['4'])
    assert state_of(net) == before
    model = tiny.build().train()
    before = state_of(model)
    with pytest.raises(UnknownNameError, match='nowhere'):
        explain3d.decompose(
            model, tiny.item(0), [*model.lmd_seeds(), *model.lmd_seeds('nothing')], ['head']
        )
    assert state_of(model) == before
