"""Gradient checkpointing is off where a pass is traced, however a block asks for it."""

import functools
import threading

import pytest
import torch
import torch.utils.checkpoint
import torch.utils.checkpoint as cp
from torch import nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint, checkpoint_sequential

from explain3d.core.checkpointing import without_checkpointing
from explain3d.core.session import frozen_evaluation

WAYS = {
    'attribute': lambda f, x, r: torch.utils.checkpoint.checkpoint(f, x, use_reentrant=r),
    'alias': lambda f, x, r: cp.checkpoint(f, x, use_reentrant=r),
    'imported name': lambda f, x, r: checkpoint(f, x, use_reentrant=r),
    'partial': lambda f, x, r: functools.partial(checkpoint, use_reentrant=r)(f, x),
    'sequential': lambda f, x, r: checkpoint_sequential([f], 1, x, use_reentrant=r),
    'function': lambda f, x, r: CheckpointFunction.apply(f, True, x),
}


class Block(nn.Module):
    """Counts how often its checkpointed part runs."""

    def __init__(self, way, reentrant):
        super().__init__()
        self.way, self.reentrant, self.calls = way, reentrant, 0
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.way(self._inner, x, self.reentrant)

    def _inner(self, x):
        self.calls += 1
        return self.layer(x).tanh()


@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('way', WAYS)
def test_gradients_of_activations_are_those_without(way, reentrant):
    block = Block(WAYS[way], reentrant)
    x = torch.arange(6.0).view(2, 3).requires_grad_()
    with frozen_evaluation(block):
        output = block(x).sum()
    (found,) = torch.autograd.grad(output, x)  # When the model has been put back, as replays do.
    assert block.calls == 1
    slope = 1 - block.layer(x).tanh() ** 2
    torch.testing.assert_close(found, 1 + slope @ block.layer.weight)


def test_checkpointing_is_back_afterwards():
    block = Block(WAYS['imported name'], False)
    x = torch.ones(1, 3, requires_grad=True)
    with pytest.raises(ZeroDivisionError), without_checkpointing(), without_checkpointing():
        raise ZeroDivisionError
    block(x).sum().backward()
    assert block.calls == 2  # Once more in the backward pass.
    assert 'apply' not in vars(CheckpointFunction)
    with pytest.raises(RuntimeError, match='use_reentrant=True'):
        torch.autograd.grad(Block(WAYS['alias'], True)(x).sum(), x)


def test_contexts_of_threads_may_overlap():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with without_checkpointing():
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with without_checkpointing():
        thread.start()
        assert inside.wait(5)
    assert 'apply' in vars(CheckpointFunction)
    leave.set()
    thread.join()
    assert 'apply' not in vars(CheckpointFunction)


def test_the_forward_context_of_a_block_stays():
    class Doubled(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            return 2 * found if function is torch.tanh else found

    contexts = dict(use_reentrant=False, context_fn=lambda: (Doubled(), Doubled()))
    x = torch.ones(2, requires_grad=True)
    with without_checkpointing():
        found = checkpoint(torch.tanh, x, **contexts)
    torch.testing.assert_close(found, checkpoint(torch.tanh, x, **contexts))
    torch.testing.assert_close(found, 2 * x.tanh())
