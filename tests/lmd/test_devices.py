"""On a device that knows no values, what waits for one fails, as does what comes from another."""

import pytest
import torch

from explain3d.lmd import Decomposition

from .networks import fusion, fusion_seeds, sensors

RULES = [
    *(dict(activation=how) for how in ('identity', 'none', 'separate')),
    *(dict(bias_split=how) for how in ('uniform', 'sum', 'ratio')),
    *(dict(instance_norm=how) for how in ('identity', 'uniform', 'none', 'separate')),
]


@pytest.mark.parametrize('rules', RULES, ids=str)
def test_a_decomposition_never_waits_for_its_device(rules):
    model = fusion(dtype=torch.float32).to('meta')
    given = [sensor.to('meta') for sensor in sensors(dtype=torch.float32)]
    with (
        torch.no_grad(),
        Decomposition(model, fusion_seeds(), ('',), rules, capture=('fuse',)) as run,
    ):
        assert model(*given).is_meta
    assert run.outputs['']['camera'].is_meta
    assert run.captured['fuse']['bias'].is_meta


def test_the_device_tells_who_waits():
    value = torch.ones(2, device='meta')
    with pytest.raises(RuntimeError, match='meta'):
        bool(value.any())
    with pytest.raises(RuntimeError, match='device'):
        torch.mul(value, torch.ones(2))
