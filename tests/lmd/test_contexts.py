"""Contexts left out of order, nested or by an exception; TorchScript and torch.compile."""

import itertools

import pytest
import torch
from torch import nn

from explain3d.core.errors import InputError, NotApplicableError
from explain3d.core.precision import kernel_settings
from explain3d.core.session import overridden
from explain3d.lmd import Decomposition, Seed

SEEDS = [Seed('0', split=dict(a=2, b=2))]


def block():
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())


def network(inner=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 4, 1), inner or block(), nn.Conv2d(4, 2, 1)).eval()


def wrapped(model):
    return [name for name, module in model.named_modules() if 'forward' in vars(module)]


@pytest.fixture
def x():
    return torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))


def test_a_second_decomposition_of_the_same_modules_is_refused(x):
    net = network()
    first, second = Decomposition(net, SEEDS, ['2']), Decomposition(net, SEEDS, ['2'])
    part = Decomposition(net[1], [Seed('0', split=dict(a=2, b=2))], ['1'])
    with torch.no_grad(), first:
        for other in (second, part):
            with pytest.raises(InputError, match='another decomposition that has not ended'):
                other.__enter__()
        net(x)
    assert not wrapped(net)
    with torch.no_grad(), second:
        net(x)
    assert torch.equal(first.outputs['2'].parts, second.outputs['2'].parts)
    assert not wrapped(net)


@pytest.mark.parametrize('order', itertools.permutations(range(3)))
def test_decompositions_of_several_models_end_in_any_order(order, x):
    nets = [network() for _ in range(3)]
    runs = [Decomposition(net, SEEDS, ['2'], mode='check') for net in nets]
    before = kernel_settings()
    with torch.no_grad():
        for run in runs:
            run.__enter__()
        for place in order:
            nets[place](x)
            runs[place].__exit__(None, None, None)
            assert not wrapped(nets[place])
            assert runs[place].outputs['2'].residual <= 1e-5
    assert kernel_settings() == before


@pytest.mark.parametrize('order', itertools.permutations(range(3)))
def test_overrides_left_in_any_order_put_back_what_was_there_first(order):
    for first in ({}, {'forward': 'own'}):
        module = nn.Identity()
        vars(module).update(first)
        contexts = [overridden(module, 'forward', value) for value in 'abc']
        for context in contexts:
            context.__enter__()
        left = list('abc')
        for place in order:
            contexts[place].__exit__(None, None, None)
            left.remove('abc'[place])
            if left:
                assert vars(module)['forward'] == left[-1]
        assert vars(module).get('forward') == first.get('forward')


def test_an_exception_inside_leaves_nothing_behind(x):
    net = network()
    net[1].register_forward_hook(lambda *_: 1 / 0)
    before = kernel_settings(), torch.tensor
    run = Decomposition(net, SEEDS, ['2'])
    with pytest.raises(ZeroDivisionError), run:
        net(x)
    assert not wrapped(net)
    assert (kernel_settings(), torch.tensor) == before
    with pytest.raises(ZeroDivisionError):
        net(x)
    net[1]._forward_hooks.clear()
    with torch.no_grad(), run:
        net(x)
    assert run.outputs['2'].conservation_error() < 1e-6


SCRIPTED = {
    'trace': lambda: torch.jit.trace(block(), torch.ones(1, 4, 5, 5)),
    'script': lambda: torch.jit.script(block()),
}


@pytest.fixture(params=SCRIPTED)
def scripted(request):
    return SCRIPTED[request.param]().eval()


def test_torchscript_is_refused_where_it_is_given_decomposed_tensors(scripted, x):
    net = network(scripted)
    before = wrapped(net)  # TorchScript's own.
    with pytest.raises(NotApplicableError, match="Module '1'.*TorchScript.*module='constant'"):  # noqa: SIM117
        with torch.no_grad(), Decomposition(net, SEEDS, ['2']):
            net(x)
    assert wrapped(net) == before
    constant = dict(per_module={'1': dict(module='constant')})
    with torch.no_grad(), Decomposition(net, SEEDS, ['2'], constant, mode='check') as run:
        net(x)
    assert torch.equal(run.outputs['2']['bias'], run.outputs['2'].value)
    with torch.no_grad():
        out = net(x)
        later = nn.Sequential(scripted, *network())
        with Decomposition(later, [Seed('1', split=dict(a=2, b=2))], ['3']) as run:
            assert torch.equal(later(x), network()(scripted(x)))
        assert torch.equal(net(x), out)
    assert wrapped(net) == before


def test_seeds_and_models_in_torchscript_are_refused_at_once(scripted):
    with pytest.raises(NotApplicableError, match='the model.*TorchScript'):
        Decomposition(scripted, [Seed('', split=dict(a=2, b=2))], [''])
    with pytest.raises(NotApplicableError, match=r"Module '1\.0' \(seed\) is TorchScript"):
        Decomposition(network(scripted), [Seed('1.0', split=dict(a=2, b=2))], ['2'])


def test_a_scripted_function_among_others_is_refused(x):
    class Mixed(nn.Module):
        def forward(self, x):
            return x + function(x)

    function = torch.jit.trace(lambda t: torch.relu(t) * 2, x)
    net = network(Mixed())
    with pytest.raises(NotApplicableError, match="Module '1' gives .* to TorchScript"):  # noqa: SIM117
        with torch.no_grad(), Decomposition(net, SEEDS, ['2']):
            net(x)


def test_what_torch_compile_made_runs_as_the_python_it_was_made_of(x):
    class Calling(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = torch.compile(lambda t: torch.relu(t) * 2, backend='eager')

        def forward(self, x):
            return self.function(x)

    inner = nn.Sequential(torch.compile(nn.Conv2d(4, 4, 1), backend='eager'), Calling())
    inner.append(nn.Conv2d(4, 4, 1))
    inner[2].compile(backend='eager')
    net = network(inner)
    with torch.no_grad():
        with Decomposition(net, SEEDS, ['2'], mode='check') as run:
            out = net(x)
        assert run.outputs['2'].residual <= 1e-5
        assert torch.equal(net(x), out)
    assert len(run.layers) > 5
    assert 'forward' not in vars(inner[0]._orig_mod)
