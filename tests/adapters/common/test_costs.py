"""Times are those of the device that computes."""

import pytest
import torch

from explain3d.adapters.common.costs import timed


@pytest.mark.parametrize(('device', 'waits'), [('cpu', 0), ('cuda:1', 2)])
def test_the_device_is_waited_for_before_and_after(device, waits, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda d: seen.append(str(d)))
    value, seconds = timed(lambda: len(seen), device)
    assert seen == [device] * waits
    assert value == waits / 2
    assert seconds >= 0
