"""The pretended device itself: it refuses what CUDA refuses, and counts what CUDA waits for."""

import pytest
import torch
from torch import nn

DEVICE = 'cuda:0'


def test_it_raises_where_cuda_does(device):
    here = torch.ones(3, 4, device=DEVICE)
    assert here.is_cuda
    assert type(here) is torch.Tensor
    for wrong in (
        lambda: here + torch.ones(4),
        lambda: torch.cat([here, torch.ones(1, 4)]),
        lambda: torch.ones(3)[torch.zeros(1, dtype=torch.long, device=DEVICE)],
        lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()),
    ):
        with pytest.raises(RuntimeError, match='device'):
            wrong()
    with pytest.raises(TypeError, match='numpy'):
        here.numpy()
    assert (here * 2 + torch.tensor(1.0))[torch.arange(2)].tolist() == [[3.0] * 4] * 2


def test_it_counts_who_waits(device):
    device.root = 'test_device'
    value = torch.ones(4, device=DEVICE)
    device.waits.clear()
    float(value.sum()), value[value > 0], torch.tensor([1, 2], device=DEVICE), value.cpu()
    kinds = sorted(kind for _, kind in device.waits.elements())
    assert kinds == ['d2h', 'h2d', 'item', 'nonzero']


def test_gradients_autocast_and_pinned_memory(device):
    layer = nn.Linear(4, 2).to(DEVICE)
    layer(torch.ones(1, 4, device=DEVICE)).sum().backward()
    assert layer.weight.grad.is_cuda
    with torch.autocast('cuda', dtype=torch.float16):
        assert layer(torch.ones(1, 4, device=DEVICE)).dtype == torch.float16
    pinned = torch.empty(2, 4, pin_memory=True).copy_(layer.weight.grad, non_blocking=True)
    assert pinned.isnan().all()
    torch.cuda.current_stream().synchronize()
    assert torch.equal(pinned, torch.ones(2, 4))


def test_what_goes_to_the_cpu_waits_once(device):
    from explain3d.core.transfer import to_cpu

    values = [torch.full((2, 3), float(i), device=DEVICE) for i in range(3)]
    device.waits.clear()
    with to_cpu() as cpu:
        found = [cpu(value) for value in values]
    assert [kind for _, kind in device.waits.elements()] == ['stream']
    assert [float(value.mean()) for value in found] == [0, 1, 2]
