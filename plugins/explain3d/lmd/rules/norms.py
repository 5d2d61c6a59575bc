"""Normalisation layers with the standard deviation frozen (Prop. 2 and 3 of LMD)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import NotApplicableError
from ..call import Call
from ..registry import rule
from ..rows import Rows
from .activations import _computed_in, with_rest
from .views import by_row

#: Rounding that a normalisation's bias takes on in check mode, in units of eps of its terms.
ROUNDING = 64


def _per_channel(vector: Tensor | None, like: Tensor) -> Tensor | None:
    """Returns (C,) as (C, 1, ..., 1), to go with channels in dimension 1 of ``like``."""
    return None if vector is None else vector.reshape(-1, *[1] * (like.dim() - 2))


@rule(F.batch_norm, torch.batch_norm)
def _batch_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    if call.func is torch.batch_norm:
        weight, bias = running_mean, running_var
        running_mean, running_var = call.args[3:5]
    if training or running_mean is None:
        raise NotApplicableError(
            f'Batch normalisation in module {call.module!r} uses the statistics of the batch: '
            'expected a model in eval mode with running statistics. Call model.eval().'
        )
    a = _computed_in(input.detach())
    scale = (running_var.to(a.dtype) + eps).rsqrt()
    scale = scale if weight is None else scale * weight.to(a.dtype)
    shift = -running_mean.to(a.dtype) * scale
    shift = shift if bias is None else shift + bias.to(a.dtype)
    scale, shift = _per_channel(scale, input), _per_channel(shift, input)
    rows = call.rows(input)
    rows = Rows(rows.ids, rows.stack * scale)
    return call.carry(call.plain(), _shifted(call, rows, shift, call.rules.batch_norm))


def _shifted(call: Call, rows: Rows, shift: Tensor, how: str) -> Rows:
    """Adds a constant to the bias, or equally to all components."""
    if how != 'uniform':
        return call.constant(rows, shift)
    rows = rows.added(range(call.size), shift / (call.size + 1))
    if not call.constant_ids:
        return rows
    rows = rows.added(call.constant_ids[:1], shift / (call.size + 1))
    return rows.added(call.constant_ids[1:], shift)


@rule(F.instance_norm, torch.instance_norm)
def _instance_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    if call.func is torch.instance_norm:
        weight, bias = running_mean, running_var
        running_mean, running_var = call.args[3:5]
    if not use_input_stats:
        return (
            _batch_norm(
                call, input, *(running_mean, running_var, weight, bias), False, momentum, eps
            )
            if call.func is not torch.instance_norm
            else _refuse(call)
        )
    affine = _per_channel(weight, input), _per_channel(bias, input)
    dims = tuple(range(2 - input.dim(), 0))
    return _normalise(call, input, dims, eps, *affine, call.rules.instance_norm)


def _refuse(call: Call) -> Tensor:
    raise NotApplicableError(
        f'torch.instance_norm with running statistics in module {call.module!r}: use '
        'torch.nn.functional.instance_norm.'
    )


@rule(F.layer_norm, torch.layer_norm)
def _layer_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _normalise(call, input, dims, eps, weight, bias, call.rules.layer_norm)


@rule(F.group_norm, torch.group_norm)
def _group_norm(
    call: Call,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *args: Any,
) -> Tensor:
    affine = _per_channel(weight, input), _per_channel(bias, input)
    dims = tuple(range(1 - input.dim(), 0))
    shape = tuple(input.shape)
    grouped = (shape[0], num_groups, shape[1] // num_groups, *shape[2:])
    return _normalise(
        call,
        input,
        dims,
        eps,
        *affine,
        call.rules.group_norm,
        lambda x: x.reshape(*x.shape[: x.dim() - len(shape)], *grouped),
    )


@rule(*([F.rms_norm] if hasattr(F, 'rms_norm') else []))
def _rms_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    a = _computed_in(input.detach())
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(a.dtype).eps if eps is None else eps
    scale = call.at_operating_point(
        'sigma', lambda: (a.square().mean(dims, keepdim=True) + eps).rsqrt()
    )
    rows = call.rows(input)
    stack = rows.stack * scale
    return call.carry(call.plain(), Rows(rows.ids, stack if weight is None else stack * weight))


def _normalise(
    call: Call,
    input: Tensor,
    dims: tuple[int, ...],
    eps: float,
    weight: Tensor | None,
    bias: Tensor | None,
    how: str,
    group: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Normalises the components over ``dims``, negative, of ``group(tensor)``."""
    a = group(_computed_in(input.detach()))
    rows = given = call.rows(input)
    shape = input.shape

    def finish(stack: Tensor) -> Tensor:
        stack = stack.reshape(*stack.shape[: stack.dim() - a.dim()], *shape)
        return stack if weight is None else stack * weight

    def statistics() -> tuple[Tensor, Tensor]:
        return _moments(a, len(dims), eps)

    if how == 'separate':
        if call.run.is_linear:
            _not_linear(call)
        rows = _normalised_separately(call, a, rows, dims, eps, group, finish)
    else:
        mean, scale = call.at_operating_point('statistics', statistics)
        stack = group(_computed_in(rows.stack))
        if how == 'ratio':
            centred = stack - stack.mean(dims, keepdim=True)
            rows = Rows(rows.ids, finish(centred.mul_(scale)))
        elif how == 'none':
            rows = _jacobian(call, a, rows, mean, scale, dims, group, finish)
        else:
            rows = Rows(rows.ids, finish(stack * scale))
            shift = finish((-mean * scale).expand(a.shape))
            rows = _shifted(call, rows, shift, how)
    out, rows = call.plain(), call.constant(rows, bias)
    if call.run.checks and how != 'separate':
        terms = group(_computed_in(given.stack).abs().sum(0)).amax(dims, keepdim=True)
        rows = _with_rounding(call, rows, out, finish((terms * scale).expand(a.shape)).abs())
    return call.carry(out, rows)


def _with_rounding(call: Call, rows: Rows, out: Tensor, largest: Tensor) -> Rows:
    """Adds to the bias what rounding leaves between the value and the components, and no more.

    Where a map is constant, value and components are what rounding leaves of a difference that is
    zero, and have nothing to do with each other. Production has the same bias: the difference.

    Args:
        call: The normalisation, in check mode.
        rows: The components of its result.
        out: Its result.
        largest: The largest term of the difference, as scaled in the result.
    """
    bound = largest * (ROUNDING * torch.finfo(largest.dtype).eps)

    def rounding(rows: Rows) -> Tensor:
        rest = out.detach() - rows.select(range(call.size + 1)).stack.sum(0)
        return torch.where(rest.abs() <= bound, rest, 0)

    # Once more: components far below the rounding are lost in the first sum.
    for name in ('rounding', 'rounding of the sum'):
        rows = call.constant(rows, call.noted(name, partial(rounding, rows)))
    return rows


def _moments(a: Tensor, count: int, eps: float) -> tuple[Tensor, Tensor]:
    """Returns mean and 1 / sqrt(variance + eps) over the last ``count`` dimensions, kept as 1.

    torch's kernel for layer normalisation is several times faster here than ``var_mean``.
    """
    shape, normalised = a.shape[: a.dim() - count], a.shape[a.dim() - count :]
    if a.numel() == 0:
        var, mean = torch.var_mean(a, tuple(range(-count, 0)), correction=0, keepdim=True)
        return mean, (var + eps).rsqrt()
    size = (normalised.numel(),)
    _, mean, scale = torch.native_layer_norm(a.reshape(-1, *size), size, None, None, eps)
    shape = (*shape, *[1] * count)
    # A variance too large for the type: 1 / sqrt of infinity, which this kernel gives as NaN.
    return mean.reshape(shape), torch.nan_to_num(scale, 0.0).reshape(shape)


def _jacobian(
    call: Call,
    a: Tensor,
    rows: Rows,
    mean: Tensor,
    scale: Tensor,
    dims: tuple[int, ...],
    group: Callable,
    finish: Callable,
) -> Rows:
    """The first-order expansion, with the derivative of the standard deviation (an ablation)."""
    unit = call.at_operating_point('normalised', lambda: (a - mean) * scale)

    def jacobian(h: Tensor) -> Tensor:
        along = (h * unit).mean(dims, keepdim=True)
        return (h - h.mean(dims, keepdim=True) - unit * along) * scale

    rest = call.at_operating_point('rest', lambda: unit - jacobian(a))
    mapped = Rows(rows.ids, finish(jacobian(group(_computed_in(rows.stack)))))
    return call.constant(mapped, lambda: finish(rest))


def _normalised_separately(
    call: Call,
    a: Tensor,
    rows: Rows,
    dims: tuple[int, ...],
    eps: float,
    group: Callable,
    finish: Callable,
) -> Rows:
    def normalised(h: Tensor) -> Tensor:
        mean, scale = _moments(h, len(dims), eps)
        return (h - mean) * scale

    def one(row: Tensor) -> Tensor:
        return finish(normalised(group(_computed_in(row))))

    whole = finish(normalised(a))
    return with_rest(call, by_row(one, rows.without(call.constant_ids), whole), whole)


def _not_linear(call: Call) -> None:
    raise NotApplicableError(
        f"{call.operation} in module {call.module!r} follows 'separate', which is not linear: "
        'there is nothing to freeze. Choose another rule.'
    )
