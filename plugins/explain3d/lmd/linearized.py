"""Gradients of the linear network that LMD puts in place of a network (Eq. 19)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from torch.overrides import TorchFunctionMode, resolve_name

from ..core.errors import InputError

_NORMS = {
    F.instance_norm: 'instance_norm',
    F.layer_norm: 'layer_norm',
    F.group_norm: 'group_norm',
}
#: Elementwise functions f, and f'(0): the slope at A = 0.
_ACTIVATIONS = {
    'relu': 0.0,
    'leaky_relu': None,
    'elu': None,
    'gelu': 0.5,
    'silu': 0.5,
    'sigmoid': 0.25,
    'tanh': 1.0,
    'softplus': None,
    'hardtanh': 1.0,
    'relu6': 0.0,
    'hardswish': 0.5,
    'mish': None,
}
_PRODUCTS = ('mul', 'multiply', 'div', 'matmul', 'bmm', 'mm', 'einsum', 'softmax', 'log_softmax',
             'scaled_dot_product_attention', 'baddbmm', 'exp', 'log', 'sqrt', 'pow')  # fmt: skip


class LinearizedGradients(TorchFunctionMode):
    """While it lasts, the gradients are those of the linear network; the values stay as they are.

    An activation passes gradients on by its secant slope (f(A) - f(0)) / A (Prop. 1), a
    normalisation by its standard deviation as a constant (Prop. 3). Max pooling and linear layers
    are their own linear form. Products of two tensors with gradients, softmax and other functions
    that are not linear have no place here and are refused.

    Args:
        rules: Rules of the decomposition, or a dict of them. Of a normalisation 'ratio' the mean
            is a function of the layer, of any other it is a constant.

    Raises:
        InputError: At an operation whose linear form is not known.
    """

    def __init__(self, rules: Mapping[str, Any] | Any = None) -> None:
        super().__init__()
        self._rules = rules
        self._activations = _by_function(_ACTIVATIONS)
        self._products = set(_by_function(dict.fromkeys(_PRODUCTS)))

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping | None = None
    ) -> Any:
        """Replaces the gradient of what is not linear."""
        kwargs = dict(kwargs or {})
        graph = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.requires_grad]
        if not graph or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func in self._activations:
            return _secant(func, self._activations[func], args, kwargs)
        if func in _NORMS:
            return self._norm(func, args, kwargs)
        if func in self._products and not _is_linear(func, args, kwargs):
            # No TypeError: Python's operators would take it for a missing implementation.
            raise InputError(
                f'{resolve_name(func)} of tensors that both depend on the layer has no linear form '
                'here: choose a layer behind it, or the gradient of the network itself '
                '(linearized=False).'
            )
        return func(*args, **kwargs)

    def _norm(self, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        family = _NORMS[func]
        rule = (
            self._rules.get(family, 'ratio')
            if isinstance(self._rules, Mapping)
            else getattr(self._rules, family, 'ratio')
        )
        x = args[0] if args else kwargs['input']
        out = func(*args, **kwargs).detach()
        centred, weight, scale = _norm_slope(func, x, args, kwargs)
        gradient = (centred if rule == 'ratio' else x) * scale.detach()
        gradient = gradient if weight is None else gradient * weight
        return out + (gradient - gradient.detach())


def _secant(func: Callable, at_zero: float | None, args: tuple, kwargs: dict) -> Tensor:
    """f(x), whose gradient is (f(x) - f(0)) / x."""
    x = args[0] if args else kwargs['input']
    with torch.no_grad():
        # On x itself, not a copy: vectorised functions round by the layout in memory.
        inplace = _is_inplace(func, args, kwargs)
        before = x.detach().clone() if inplace else x.detach()
        others = {k: v for k, v in kwargs.items() if k != 'input'}
        out = func(before.clone() if inplace else before, *args[1:], **others)
        wide, f = before.double(), _pure(func, args[1:], others)
        zero = f(torch.zeros((), dtype=torch.float64, device=x.device))
        # In float64, so that the quotient is right near zero, too.
        slope = ((f(wide) - zero) / wide).to(x.dtype)
        # Where even that cancels: the derivative, by its mean over the neighbourhood.
        near = before.abs() < 1e-8
        if near.any():
            slope = torch.where(near, _derivative(f, x, at_zero), slope)
    surrogate = out + ((x * slope) - (x * slope).detach())
    return x.copy_(surrogate) if inplace else surrogate


def _derivative(f: Callable, like: Tensor, at_zero: float | None) -> Tensor:
    if at_zero is None:
        step = torch.tensor(1e-6, dtype=torch.float64, device=like.device)
        at_zero = ((f(step) - f(-step)) / (2 * step)).item()
    return like.new_full((), at_zero)


def _pure(func: Callable, others: tuple, kwargs: dict) -> Callable[[Tensor], Tensor]:
    """The function of x alone, never in place."""
    return lambda x: func(x.clone(), *others, **kwargs)


def _norm_slope(
    func: Callable, x: Tensor, args: tuple, kwargs: dict
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Centred input, gain, and 1 / sigma of a normalisation, all of broadcastable shape."""
    names = {
        F.instance_norm: ('input', 'running_mean', 'running_var', 'weight', 'bias',
                          'use_input_stats', 'momentum', 'eps'),
        F.layer_norm: ('input', 'normalized_shape', 'weight', 'bias', 'eps'),
        F.group_norm: ('input', 'num_groups', 'weight', 'bias', 'eps'),
    }[func]  # fmt: skip
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    eps, weight = given.get('eps', 1e-5), given.get('weight')
    if func is F.layer_norm:
        dims = tuple(range(-len(given['normalized_shape']), 0))
        mean, variance = x.mean(dims, True), x.var(dims, False, keepdim=True)
        return x - mean, weight, (variance + eps).rsqrt()
    per_channel = (1, -1, *[1] * (x.dim() - 2))
    weight = None if weight is None else weight.view(per_channel)
    if func is F.group_norm:
        groups = given['num_groups']
        split = x.unflatten(1, (groups, x.shape[1] // groups))
        dims = tuple(range(2, split.dim()))
        centred = (split - split.mean(dims, True)).flatten(1, 2)
        variance = split.var(dims, False, keepdim=True).expand_as(split).flatten(1, 2)
        return centred, weight, (variance + eps).rsqrt()
    if not given.get('use_input_stats', True):
        scale = (given['running_var'] + eps).rsqrt().view(per_channel)
        return x, weight, scale
    dims = tuple(range(2, x.dim()))
    mean, variance = x.mean(dims, True), x.var(dims, False, keepdim=True)
    return x - mean, weight, (variance + eps).rsqrt()


def _is_linear(func: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether a product or quotient has one factor only that depends on the layer."""
    name = func.__name__.strip('_')
    if name in ('softmax', 'log_softmax', 'exp', 'log', 'sqrt', 'pow'):
        return False
    found = [*args, *kwargs.values()]
    found = [t for a in found for t in (a if isinstance(a, (list, tuple)) else [a])]
    graph = [i for i, t in enumerate(found) if isinstance(t, Tensor) and t.requires_grad]
    return len(graph) <= 1 and not ('div' in name and graph and graph[0] == 1)


def _is_inplace(func: Callable, args: tuple, kwargs: dict) -> bool:
    if func.__name__.endswith('_'):
        return True
    position = {'relu': 1, 'leaky_relu': 2, 'elu': 2, 'silu': 1, 'hardtanh': 3, 'relu6': 1,
                'hardswish': 1, 'mish': 1}.get(func.__name__)  # fmt: skip
    flag = args[position] if position is not None and len(args) > position else False
    return bool(kwargs.get('inplace', flag))


def _by_function(names: Mapping[str, Any]) -> dict[Callable, Any]:
    """All forms of functions by their names: torch's, the tensor's, in place, functional."""
    owners = (torch, Tensor, F, torch._C._nn, torch.special)
    found = {}
    for name, value in names.items():
        for owner in owners:
            for form in (name, f'{name}_', f'__{name}__', f'__r{name}__', f'__i{name}__'):
                if hasattr(owner, form):
                    found[getattr(owner, form)] = value
    for form in ('__truediv__', '__rtruediv__', '__itruediv__', 'true_divide', 'rsqrt'):
        if 'div' in names:
            found[getattr(Tensor, form)] = None
    return found
