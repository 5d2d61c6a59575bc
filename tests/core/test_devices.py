"""On a device that knows no values, what waits for one fails, as does what comes from another."""

import pytest
import torch

from explain3d.core.devices import default_device, device_of_process, use_device
from explain3d.core.nmf_coarse import LEAST_ROWS, coarse
from explain3d.core.nmf_updates import objective, steps


@pytest.mark.parametrize(
    ('loss', 'solver'), [('frobenius', 'hals'), ('frobenius', 'mu'), ('kl', 'mu')]
)
def test_the_factorisation_never_waits_between_its_looks_at_the_objective(loss, solver):
    F = torch.rand(2, LEAST_ROWS + 50, 8, device='meta')
    H, W = coarse(F, [LEAST_ROWS, LEAST_ROWS + 50], 4)
    both, weights = steps(loss, solver)
    both(F, H, W)
    weights(F, H, W)
    assert objective(F, H, W, loss).is_meta


@pytest.mark.parametrize(
    ('asked', 'expected'),
    [
        ('cpu', ['cpu'] * 3),
        ('cuda', ['cuda:0', 'cuda:1', 'cuda:0']),
        ('cuda:1', ['cuda:1'] * 3),
    ],
)
def test_processes_take_turns_at_the_gpus(asked, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert [device_of_process(asked, number) for number in range(3)] == expected


@pytest.mark.parametrize(('device', 'index'), [('cpu', None), ('cuda', 0), ('cuda:1', 1)], ids=str)
def test_a_gpu_becomes_the_current_one(device, index, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, 'set_device', lambda d: made.append(torch.device('cuda', d)
                                                   if isinstance(d, int) else d))  # fmt: skip
    use_device(device)
    assert [d.index for d in made] == ([] if index is None else [index])


@pytest.mark.parametrize('there', [True, False])
def test_the_default_is_a_gpu_where_there_is_one(there, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: there)
    assert default_device() == ('cuda' if there else 'cpu')
