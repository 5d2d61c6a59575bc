"""The digest of a model's weights: that of their bytes, and a fingerprint that tells any change."""

import pytest
import torch
from torch import nn

from explain3d.adapters.common import weights


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    net.register_buffer('small', torch.arange(3.0).half())
    net.register_buffer('none', torch.zeros(0))
    return net


CHANGES = {
    'one bit': lambda net: net[0].weight.data.view(torch.int32)[2, 1].bitwise_xor_(1),
    'two swapped': lambda net: net[0].bias.data.copy_(net[0].bias.data[[1, 0, 2, 3, 4]]),
    'a buffer': lambda net: net[1].num_batches_tracked.add_(1),
    'half precision': lambda net: net.small.add_(1),
    'another shape': lambda net: setattr(net, 'none', torch.zeros(1)),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('what', ['digest', 'fingerprint'])
def test_any_change_is_told(what, change):
    function = weights.weights_digest
    if what == 'fingerprint':
        function = lambda net: weights._fingerprint(net.state_dict())  # noqa: E731
    net = network()
    before = function(net)
    assert function(network()) == before
    CHANGES[change](net)
    assert function(net) != before
