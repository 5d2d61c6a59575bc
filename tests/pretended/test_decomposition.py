"""A whole decomposition on the device: in production mode it never waits."""

import pytest
import torch

from explain3d.lmd import Decomposition
from tests.lmd.networks import TOLERANCE, fusion, fusion_seeds, sensors


@pytest.mark.parametrize('mode', ['production', 'check'])
def test_its_parts_add_up_on_the_device(mode, here):
    model = fusion(dtype=torch.float32).to('cuda:0')
    given = sensors(dtype=torch.float32)
    with torch.no_grad(), Decomposition(model, fusion_seeds(), ('',), mode=mode) as run:
        here.waits.clear()
        out = model(*given)
        waited = sum(here.waits.values())
    parts = run.outputs['']
    assert out.is_cuda
    assert parts['camera'].is_cuda
    total = parts['camera'] + parts['radar'] + parts['bias']
    assert float((total - out).abs().max() / out.abs().max()) < TOLERANCE[torch.float32]
    assert mode == 'check' or waited == 0, here.report()
    if mode == 'check':
        assert float(parts.residual) < TOLERANCE[torch.float32]
