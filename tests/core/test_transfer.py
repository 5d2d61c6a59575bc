"""Tensors on their way to the CPU."""

import pytest
import torch

from explain3d.core.transfer import to_cpu


def test_a_tensor_of_the_cpu_is_handed_on_without_its_graph():
    value = torch.ones(3, requires_grad=True) * 2
    with to_cpu() as cpu:
        found = cpu(value)
    assert not found.requires_grad
    assert found.data_ptr() == value.data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_is_waited_for_once():
    values = [torch.randn(1000, 1000, device='cuda') for _ in range(3)]
    with to_cpu() as cpu:
        found = [cpu(value @ value) for value in values]
    assert all(part.is_pinned() for part in found)
    for value, part in zip(values, found, strict=True):
        assert torch.equal(part, (value @ value).cpu())
