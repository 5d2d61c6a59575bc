"""Decomposed values that leave torch's dispatch: carried along, refused or told, never silent."""

import copy
import json
import math
import pickle
import warnings
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from explain3d.core.errors import NotApplicableError, UnknownOperationError
from explain3d.lmd import Decomposition
from explain3d.lmd.exports import ExportWarning
from tests.lmd.networks import SEEDS, OneOperation, decompose, inputs

SMALL = (1, 4, 3, 3)


class InNumPy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() * 2)


def numbers_of(x):
    return [v for v in x.flatten()]


#: Each gives the same as the operation beside it, which has rules.
EXACT = {
    'tensor': (lambda x: torch.tensor(x), torch.clone),
    'tensor of a list': (lambda x: torch.tensor(numbers_of(x)).view_as(x), torch.clone),
    'tensor of nested lists': (
        lambda x: torch.tensor([[x[0, 0, 0, 0], 2.0], [1, x[0, 1, 0, 0]]], dtype=x.dtype).sum(),
        lambda x: x[0, 0, 0, 0] + x[0, 1, 0, 0] + 3,
    ),
    'as_tensor': (lambda x: torch.as_tensor(x), torch.clone),
    'as_tensor of a type': (lambda x: torch.as_tensor(x, dtype=torch.float32), torch.Tensor.float),
    'asarray': (lambda x: torch.asarray(x), torch.clone),
    'asarray, copied': (lambda x: torch.asarray(x, copy=True) * 2, lambda x: x * 2),
    'new_tensor': (lambda x: x.new_tensor(x), torch.clone),
    'new_tensor of a plain one': (lambda x: x.detach()[:0].new_tensor(x), torch.clone),
    'scalar_tensor': (
        lambda x: torch.scalar_tensor(x.mean(), dtype=x.dtype) + x,
        lambda x: x.mean() + x,
    ),
    'data': (lambda x: x.data * 2, lambda x: x * 2),
    'deque': (lambda x: deque([x]).pop() * 2, lambda x: x * 2),
    'copy': (copy.copy, torch.clone),
    'deepcopy': (copy.deepcopy, torch.clone),
    'view_as of a plain one': (lambda x: x + torch.ones(x.numel()).view_as(x), lambda x: x + 1),
    'expand_as of a plain one': (lambda x: x + torch.ones(3).expand_as(x), lambda x: x + 1),
    'a factor that is read': (lambda x: x * x.amax().item(), lambda x: x * x.detach().amax()),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore::explain3d.lmd.exports.ExportWarning')
@pytest.mark.filterwarnings('ignore:To copy construct')
@pytest.mark.parametrize('name', EXACT)
def test_what_torch_does_not_dispatch_keeps_its_components(name):
    ours, known = EXACT[name]
    args = inputs(shape=SMALL)
    for mode in ('production', 'check'):
        found = decompose(OneOperation(ours), *args, mode=mode).outputs['']
        expected = decompose(OneOperation(known), *args, mode=mode).outputs['']
        torch.testing.assert_close(found.parts, expected.parts, rtol=1e-6, atol=1e-12)


#: Each takes all values out of torch, or brings back a number other than as a factor.
LEAKS = {
    'numpy': lambda x: torch.from_numpy(x.numpy() * 2),
    'detach().cpu().numpy()': lambda x: torch.from_numpy(x.detach().cpu().numpy() * 2),
    'data.numpy()': lambda x: torch.from_numpy(x.data.numpy() * 2),
    'tolist': lambda x: torch.tensor(x.tolist(), dtype=x.dtype),
    'np.asarray': lambda x: torch.from_numpy(np.asarray(x) + 1),
    'np ufunc': lambda x: torch.as_tensor(np.exp(x)),
    'writing through a view of NumPy': lambda x: (np.copyto(x.numpy(), 3.0), x)[1],
    'from_dlpack': torch.from_dlpack,
    'to_dlpack': lambda x: torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)),
    'np.from_dlpack': lambda x: torch.from_numpy(np.from_dlpack(x).copy()),
    'autograd.Function in NumPy': InNumPy.apply,
    'pickle': lambda x: pickle.loads(pickle.dumps(x)),
    'item, added': lambda x: x + x.mean().item(),
    'item, subtracted from the left': lambda x: x.mean().item() - x,
    'item, computed with': lambda x: x + (2 * abs(-x.mean().item()) + 1) ** 2 / 3,
    'items': lambda x: torch.tensor([v.item() for v in x.flatten()], dtype=x.dtype).view_as(x),
    'full': lambda x: x + torch.full(x.shape, x.mean().item(), dtype=x.dtype),
    'full_like': lambda x: torch.full_like(x, x.mean().item()),
    'linspace': lambda x: x + torch.linspace(0, x.amax().item(), 3, dtype=x.dtype),
    'where': lambda x: torch.where(x > 0, x, x.mean().item()),
}


@pytest.mark.filterwarnings('ignore::explain3d.lmd.exports.ExportWarning')
@pytest.mark.parametrize('name', LEAKS)
def test_values_that_leave_torch_are_refused_with_the_line(name):
    model = OneOperation(LEAKS[name])
    line = LEAKS[name].__code__.co_firstlineno if name != 'autograd.Function in NumPy' else None
    if name == 'from_dlpack':
        line = None
    with pytest.raises(UnknownOperationError, match="No LMD rule: .*module ''.*exports=") as error:
        decompose(model, *inputs(shape=SMALL))
    if line:
        assert f'{__file__}:{line}' in str(error.value)
    assert 'forward' not in vars(model)


@pytest.mark.parametrize('policy', ['warn', 'allow'])
def test_leaks_can_be_warned_of_or_allowed_by_module(policy):
    model = OneOperation(nn.Sequential(Module(LEAKS['numpy']), nn.ReLU()))
    rules = dict(per_module={'operation.0': dict(exports=policy)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        run = decompose(model, *inputs(), rules=rules)
        if policy == 'warn':
            assert [w.category for w in caught] == [ExportWarning]
            assert caught[0].filename == __file__
            assert caught[0].lineno == LEAKS['numpy'].__code__.co_firstlineno
        else:
            assert not caught
    (export,) = run.exports
    assert (export.operation, export.module) == ('torch.Tensor.numpy', 'operation.0')
    assert export.place == f'{__file__}:{LEAKS["numpy"].__code__.co_firstlineno}'


class Module(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return x + self.operation(x)


def steered(x):
    """Control flow: exact for the path that is taken."""
    number = x.mean().item()
    assert isinstance(json.loads(json.dumps(number)), float)
    assert type(pickle.loads(pickle.dumps(number))) is float
    if number > 100 or math.isnan(number):
        return x
    return x * 2 if float(x.amax()) > -100 and int(x.amax()) < 100 and bool(x.amax()) else x


def test_numbers_that_steer_the_network_are_noted_and_warned_of_once_a_line():
    args = inputs(shape=SMALL)
    expected = decompose(OneOperation(lambda x: x * 2), *args).outputs['']
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        for _ in range(2):
            run = decompose(OneOperation(steered), *args)
    assert torch.equal(run.outputs[''].parts, expected.parts)
    assert [e.operation.rpartition('.')[2] for e in run.exports] == [
        'item', '__float__', '__int__', '__bool__',
    ]  # fmt: skip
    assert len(caught) == 2
    assert all(w.category is ExportWarning and w.filename == __file__ for w in caught)


@pytest.mark.parametrize(
    'transform',
    [
        lambda x: torch.func.vmap(lambda t: t * 2)(x),
        lambda x: torch.func.grad(lambda t: (t**2).sum())(x),
        lambda x: torch.func.vjp(lambda t: t * 2, x)[0],
        lambda x: torch.func.jvp(lambda t: t * 2, (x,), (torch.ones_like(x),))[0],
        lambda x: torch.func.jacrev(lambda t: t.sum(0))(x).sum((0, 1, 2)),
    ],
)
def test_transforms_of_torch_func_are_refused(transform):
    with pytest.raises((NotApplicableError, UnknownOperationError), match='module_rule|_make_dual'):
        decompose(OneOperation(transform), *inputs(shape=SMALL))


def test_what_is_not_decomposed_leaves_and_transforms_freely():
    def operation(x):
        weights = x.softmax(1)  # All of it the bias.
        half = torch.func.vmap(lambda t: t / 2)(torch.ones(4, 3, dtype=x.dtype))
        assert weights.numpy().shape == x.shape
        return x * torch.tensor(half.tolist(), dtype=x.dtype)[0, 0]

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        run = decompose(OneOperation(operation), *inputs(shape=SMALL))
    assert not run.exports


def test_torchs_functions_are_put_back_when_the_last_decomposition_ends():
    def functions():
        from torch._functorch import vmap

        new_tensor = vars(torch.Tensor).get('new_tensor')
        return torch.tensor, torch.asarray, vmap._add_batch_dim, new_tensor

    before = functions()
    a, b = (OneOperation(torch.relu) for _ in range(2))
    first, second = Decomposition(a, SEEDS, ['']), Decomposition(b, SEEDS, [''])
    with first:
        assert functions() != before
        second.__enter__()
    assert torch.equal(torch.tensor([1.0]), torch.ones(1))
    second.__exit__(None, None, None)
    assert functions() == before
