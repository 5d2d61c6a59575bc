"""Summing lifted features by cell against the definition, its gradient against autograd."""

import torch

from explain3d.adapters.pcdet.cpu import bev_pool


def test_features_of_a_cell_are_summed_and_its_gradient_is_shared():
    generator = torch.Generator().manual_seed(0)
    sizes = B, D, H, W = 2, 1, 3, 4
    cells = torch.stack(
        [torch.randint(0, n, (50,), generator=generator) for n in (H, W, D, B)], 1
    ).int()
    x = torch.randn(50, 5, generator=generator, dtype=torch.float64)
    nothing = torch.zeros(0)
    out = bev_pool.bev_pool_forward(x, cells, nothing, nothing, *(torch.tensor(n) for n in sizes))
    expected = torch.zeros(B, D, H, W, 5, dtype=torch.float64)
    x.requires_grad_()
    for row, (i, j, k, b) in zip(x, cells.tolist(), strict=True):
        expected[b, k, i, j] = expected[b, k, i, j] + row
    torch.testing.assert_close(out, expected.detach())
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    found = bev_pool.bev_pool_backward(weight, cells, nothing, nothing, *sizes)
    torch.testing.assert_close(found, wanted)
