"""On a device that knows no values, what waits for one fails, as does what comes from another."""

import pytest
import torch

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
