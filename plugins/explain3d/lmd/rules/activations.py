"""Activations: the secant through (0, f(0)) and the operating point (Prop. 1 of LMD).

Each slope is written in the form that is accurate near zero, where (f(A) - f(0)) / A would lose all
digits. At A = 0 it is f'(0) for smooth f, a declared deviation: the paper's O / (A + epsilon) gives
0 there. What matters is that f(0) + c * A is f(A) to rounding, so that the components add up.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..call import Call
from ..dispatch import unknown
from ..registry import forms, rule
from ..rows import Rows
from ..splitting import bias_shares
from .views import by_row


def activation(
    *functions: Callable, f: Callable, gate: bool = False
) -> Callable[[Callable], Callable]:
    """Registers the slope of an elementwise function.

    Args:
        functions: The function in all its forms.
        f: The function out of place, called as ``f(A, *parameters)``.
        gate: Whether it is bounded, which makes its result the frozen factor of a product.

    Returns:
        A decorator for ``slope(A, *parameters)``, whose signature says which parameters there are.
    """

    def decorate(slope: Callable) -> Callable:
        signature = inspect.signature(slope)
        names = list(signature.parameters)

        @rule(*functions)
        def apply(call: Call, *args: Any, **kwargs: Any) -> Tensor:
            renamed = {k: v for k, v in kwargs.items() if k in names[1:]}
            args = args or (kwargs['input'],)
            bound = signature.bind(*args[: len(names)], **renamed)
            bound.apply_defaults()
            value, *parameters = bound.args
            if not call.is_carried(value):
                raise unknown(call.operation, call.module, ' Only a parameter is decomposed.')
            parameters = call.constants('parameters', parameters)
            return activate(call, value, slope, f, parameters, gate)

        return slope

    return decorate


def activate(
    call: Call, value: Tensor, slope: Callable, f: Callable, parameters: Any, gate: bool = False
) -> Tensor:
    """Applies an elementwise function to a carried tensor by the rules of its module."""
    a = _computed_in(value.detach())
    rows = call.rows(value)
    rules = call.rules
    if rules.activation == 'separate':
        rows = _separately(call, a, rows, lambda x: f(x, *parameters))
        return call.carry(call.plain(), rows, gate)
    if rules.activation == 'none':
        c = call.at_operating_point('slope', lambda: _derivative(a, f, parameters))
    else:
        c = call.at_operating_point('slope', lambda: slope(a, *parameters))
    rows = split(call, value, rows, rules.bias_split)
    ndim = c.dim() if isinstance(c, Tensor) else 0
    rows = Rows(rows.ids, (rows.lifted(ndim) * c).to(value.dtype))

    def intercept() -> Tensor | None:
        if rules.activation == 'none':
            return f(a, *parameters) - c * a
        return _at_zero(a, f, parameters)

    if call.run.remembers or call.constant_ids:
        constant = call.at_operating_point('intercept', intercept)
        rows = call.constant(rows, constant)
    return call.carry(call.plain(), rows, gate)


def split(call: Call, value: Tensor, rows: Rows, how: str) -> Rows:
    """Shares the bias component out before the slope is applied."""
    if how == 'identity':
        return rows
    size = call.size
    rows = rows.select(call.all_ids)
    bias = call.bias(value, rows.select(range(size)) if not call.constant_ids else rows)
    shares, left = call.at_operating_point(
        'shares', lambda: bias_shares(how, rows.stack[:size], bias)
    )
    stack = torch.empty_like(rows.stack)
    stack[:size] = rows.stack[:size] + shares * bias
    if call.constant_ids:
        stack[size] = left * bias
        stack[size + 1 :] = rows.stack[size + 1 :]
    return Rows(rows.ids, stack)


def _at_zero(a: Tensor, f: Callable, parameters: Any) -> Tensor | None:
    """Returns f(0) in the shape of ``a``; None where it is known to be zero.

    Known is what does not wait for a device: a function of numbers alone is asked on the CPU.
    """
    if any(isinstance(parameter, Tensor) for parameter in parameters):
        return f(torch.zeros_like(a), *parameters)
    value = f(torch.zeros((), dtype=a.dtype, device='cpu'), *parameters).item()
    return torch.full_like(a, value) if value else None


def _computed_in(a: Tensor) -> Tensor:
    """Returns half-precision values in float32, as the kernels compute them."""
    return a.float() if a.dtype in (torch.float16, torch.bfloat16) else a


def _derivative(a: Tensor, f: Callable, parameters: Any) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        x = a.clone().requires_grad_()
        return torch.autograd.grad(f(x, *parameters).sum(), x)[0]


def _separately(call: Call, a: Tensor, rows: Rows, f: Callable) -> Rows:
    """Each modality by itself, the rest is the bias's (an ablation)."""
    if call.run.is_linear:
        raise unknown(call.operation, call.module, " 'separate' is not linear: nothing to freeze.")
    return with_rest(call, by_row(f, rows.without(call.constant_ids), a), f(a))


def with_rest(call: Call, modalities: Rows, total: Tensor) -> Rows:
    """Returns the modalities' components with the bias that completes ``total``."""
    if not call.constant_ids:
        return modalities
    rest = total - modalities.stack.sum(0)
    return modalities.added(call.constant_ids, rest.to(modalities.stack.dtype))


def ratio(numerator: Tensor, a: Tensor, at_zero: float | Tensor) -> Tensor:
    """Returns numerator / a, and ``at_zero`` where a is 0."""
    zero = a == 0
    return torch.where(zero, at_zero, numerator / torch.where(zero, 1.0, a))


# ---------------------------------------------------------------- piecewise linear


@activation(*forms('relu'), f=torch.relu)
def _relu(a: Tensor) -> Tensor:
    return (a > 0).to(a.dtype)


@activation(*forms('leaky_relu'), f=F.leaky_relu)
def _leaky_relu(a: Tensor, negative_slope: float = 0.01) -> Tensor:
    return torch.where(a > 0, torch.ones_like(a), negative_slope)


@activation(*forms('prelu'), f=F.prelu)
def _prelu(a: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() > 1:
        weight = weight.reshape(-1, *[1] * (a.dim() - 2))
    return torch.where(a > 0, torch.ones((), dtype=a.dtype, device=a.device), weight.to(a.dtype))


@rule(*forms('rrelu'))
def _rrelu(
    call: Call,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *_: Any,
    **__: Any,
) -> Tensor:
    if training:
        raise unknown(call.operation, call.module, ' It is random in training mode: call eval().')
    return activate(call, input, _leaky_relu, F.leaky_relu, ((lower + upper) / 2,))


@activation(*forms('hardtanh'), f=F.hardtanh)
def _hardtanh(a: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return _clamp(a, min_val, max_val)


@activation(*forms('relu6'), f=F.relu6)
def _relu6(a: Tensor) -> Tensor:
    return _clamp(a, 0.0, 6.0)


@activation(*forms('clamp', 'clip'), f=torch.clamp)
def _clamp(a: Tensor, min: Any = None, max: Any = None) -> Tensor:
    at_zero = torch.clamp(torch.zeros_like(a), min, max)
    # At A = 0 the slope does not matter to the sum: the derivative if 0 is inside the bounds.
    inside = torch.ones_like(a)
    for bound, sign in ((min, -1), (max, 1)):
        if bound is not None:
            inside = inside * (bound * sign > 0)
    return ratio(torch.clamp(a, min, max) - at_zero, a, inside)


@activation(*forms('clamp_min'), f=torch.clamp_min)
def _clamp_min(a: Tensor, min: Any) -> Tensor:
    return _clamp(a, min)


@activation(*forms('clamp_max'), f=torch.clamp_max)
def _clamp_max(a: Tensor, max: Any) -> Tensor:
    return _clamp(a, None, max)


@activation(*forms('threshold'), f=F.threshold)
def _threshold(a: Tensor, threshold: float, value: float) -> Tensor:
    at_zero = F.threshold(torch.zeros((), dtype=a.dtype, device=a.device), threshold, value)
    return ratio(F.threshold(a, threshold, value) - at_zero, a, 0.0)


@activation(*forms('abs', 'absolute'), Tensor.__abs__, f=torch.abs)
def _abs(a: Tensor) -> Tensor:
    return a.sign()


@activation(*forms('hardshrink'), f=F.hardshrink)
def _hardshrink(a: Tensor, lambd: float = 0.5) -> Tensor:
    return ratio(F.hardshrink(a, lambd), a, 0.0)


@activation(*forms('softshrink'), f=F.softshrink)
def _softshrink(a: Tensor, lambd: float = 0.5) -> Tensor:
    return ratio(F.softshrink(a, lambd), a, 0.0)


@activation(*forms('hardswish'), f=F.hardswish)
def _hardswish(a: Tensor) -> Tensor:
    return (a + 3).clamp(0, 6) / 6


@activation(*forms('hardsigmoid'), f=F.hardsigmoid, gate=True)
def _hardsigmoid(a: Tensor) -> Tensor:
    return ratio(a.clamp(-3, 3) / 6, a, 1 / 6)


# ---------------------------------------------------------------- smooth


def _gelu_f(a: Tensor, approximate: str = 'none') -> Tensor:
    return F.gelu(a, approximate=approximate)


@activation(*forms('gelu'), f=_gelu_f)
def _gelu(a: Tensor, approximate: str = 'none') -> Tensor:
    if approximate == 'tanh':
        return torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)).add(1).div(2)
    return torch.erf(a * math.sqrt(0.5)).add_(1).div_(2)


@activation(*forms('silu'), f=F.silu)
def _silu(a: Tensor) -> Tensor:
    return torch.sigmoid(a)


@activation(*forms('mish'), f=F.mish)
def _mish(a: Tensor) -> Tensor:
    return torch.tanh(F.softplus(a))


@activation(*forms('sigmoid', 'expit'), f=torch.sigmoid, gate=True)
def _sigmoid(a: Tensor) -> Tensor:
    return ratio(torch.tanh(a / 2) / 2, a, 0.25)


@activation(*forms('tanh'), f=torch.tanh, gate=True)
def _tanh(a: Tensor) -> Tensor:
    return ratio(torch.tanh(a), a, 1.0)


@activation(F.tanhshrink, f=F.tanhshrink)
def _tanhshrink(a: Tensor) -> Tensor:
    return 1 - _tanh(a)


@activation(*forms('softsign'), f=F.softsign)
def _softsign(a: Tensor) -> Tensor:
    return 1 / (1 + a.abs())


@activation(*forms('elu'), f=F.elu)
def _elu(a: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(a > 0, 1.0, alpha * _expm1_slope(a.clamp(max=0)))


@activation(*forms('celu'), f=torch.celu)
def _celu(a: Tensor, alpha: float = 1.0) -> Tensor:
    return torch.where(a > 0, 1.0, _expm1_slope(a.clamp(max=0) / alpha))


@activation(*forms('selu'), f=torch.selu)
def _selu(a: Tensor) -> Tensor:
    return 1.0507009873554804934193349852946 * _elu(a, 1.6732632423543772848170429916717)


def _expm1_slope(a: Tensor) -> Tensor:
    return ratio(torch.expm1(a), a, 1.0)


@activation(*forms('softplus'), f=F.softplus)
def _softplus(a: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    # softplus(x) - log 2 = x / 2 + log cosh(x / 2), where log cosh has an accurate form near zero.
    x = a * beta
    half = x.abs() / 2
    near = torch.log1p(torch.sinh(half.clamp(max=1)) ** 2) / 2
    # Farther away the difference itself loses nothing, and the half would be lost of its digits.
    far = (F.softplus(a, beta, threshold) - math.log(2) / beta) / torch.where(half < 1, 1.0, a)
    return torch.where(half < 1, 0.5 + ratio(near, x, 0.0), far)


@activation(*forms('logsigmoid', 'log_sigmoid'), f=F.logsigmoid)
def _logsigmoid(a: Tensor) -> Tensor:
    return _softplus(-a, threshold=math.inf)


@activation(*forms('exp'), f=torch.exp)
def _exp(a: Tensor) -> Tensor:
    return _expm1_slope(a)


@activation(*forms('expm1'), f=torch.expm1)
def _expm1(a: Tensor) -> Tensor:
    return _expm1_slope(a)


@activation(*forms('log1p'), f=torch.log1p)
def _log1p(a: Tensor) -> Tensor:
    return ratio(torch.log1p(a), a, 1.0)


@activation(*forms('sin'), f=torch.sin, gate=True)
def _sin(a: Tensor) -> Tensor:
    return ratio(torch.sin(a), a, 1.0)


@activation(*forms('cos'), f=torch.cos, gate=True)
def _cos(a: Tensor) -> Tensor:
    return -torch.sin(a / 2) * ratio(torch.sin(a / 2), a / 2, 1.0)


@activation(*forms('atan', 'arctan'), f=torch.atan)
def _atan(a: Tensor) -> Tensor:
    return ratio(torch.atan(a), a, 1.0)


@activation(*forms('erf'), f=torch.erf)
def _erf(a: Tensor) -> Tensor:
    return ratio(torch.erf(a), a, 2 / math.sqrt(math.pi))


@rule(*forms('pow'), Tensor.__pow__, Tensor.__ipow__)
def _pow(call: Call, input: Tensor, exponent: Any) -> Tensor:
    number = isinstance(exponent, (int, float)) and exponent >= 1 and call.is_carried(input)
    if not number:
        raise unknown(call.operation, call.module, ' Expected a power of a number of at least 1.')
    if exponent == 1:
        return activate(call, input, torch.ones_like, torch.clone, ())

    def slope(a: Tensor) -> Tensor:
        return a ** (exponent - 1)

    return activate(call, input, slope, lambda a: a**exponent, ())


@rule(*forms('log', 'log2', 'log10', 'reciprocal', 'sqrt', 'rsqrt'))
def _not_at_zero(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    raise unknown(
        call.operation, call.module, ' It has no finite value or slope at 0, which LMD needs.'
    )


# ---------------------------------------------------------------- nothing or randomness


@rule(*forms('dropout', 'dropout1d', 'dropout2d', 'dropout3d', 'alpha_dropout'),
      *forms('feature_alpha_dropout', 'feature_dropout'))  # fmt: skip
def _dropout(
    call: Call, input: Tensor, p: float = 0.5, training: bool | None = None, *_: Any, **kwargs: Any
) -> Tensor:
    training = kwargs.get('train', training)
    # torch's own forms have no default, those of functional differ in theirs.
    default = 'alpha_dropout' not in call.func.__name__
    if (default if training is None else training) and p > 0:
        raise unknown(call.operation, call.module, ' It is random in training mode: call eval().')
    rows = call.rows(input)
    out = call.plain()
    return out if call.is_carried(out) else call.carry(out, rows)
