"""Modules that take another way through the code when they are given plain tensors.

torch's transformer modules have fused kernels for plain tensors in eval mode. They run for the
value, which must be the network's own, bit for bit; the components come from the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import NotApplicableError
from ..nested import exchanged, tensors
from ..registry import module_rule
from ..rows import Rows
from ..twin import Carried, Twin

if TYPE_CHECKING:
    from ..decomposition import Decomposition

#: The fused and the ordinary way differ by rounding; more means that they compute other things.
_TOLERANCE = 1e-2


@module_rule(nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
def _fused(
    run: Decomposition, forward: Callable, module: nn.Module, args: tuple, kwargs: dict
) -> Any:
    if module.training:
        return forward(*args, **kwargs)
    run.is_active = False
    try:
        with torch._C.DisableTorchFunctionSubclass():
            values = forward(*args, **kwargs)
    finally:
        run.is_active = True
    ordinary = dict(tensors(forward(*args, **kwargs)))

    def carried(path: str, value: Tensor) -> Tensor:
        other = ordinary.get(path)
        if not isinstance(other, Carried) or isinstance(value, Carried):
            return value
        with torch._C.DisableTorchFunctionSubclass(), torch.set_grad_enabled(run.differentiable):
            _check_same(run, value.detach(), other.detach(), type(module).__name__)
            rows = other._twin.rows(other)
            twin = Twin(run, value, Rows(rows.ids, rows.stack.clone()))
            twin.residual = other._twin.residual
            return run.carry(value, twin)

    return exchanged(values, carried)


_fused.of_forward = True


def _check_same(run: Decomposition, value: Tensor, other: Tensor, name: str) -> None:
    """Asks whether both ways give the same; the answer is waited for when results are read."""
    if not value.numel():
        return
    error = (value - other).abs().max() / value.abs().max().clamp_min(1e-30)
    path = run.module

    def differ() -> NotApplicableError:
        return NotApplicableError(
            f"{name} in module {path!r}: torch's fused kernel and its ordinary code differ by "
            f'{float(error):.1g} (padded positions, usually). Switch the fused kernel off with '
            'torch.backends.mha.set_fastpath_enabled(False), for the plain run as well.'
        )

    run.verification.ask((error > _TOLERANCE) & torch.isfinite(value).all(), differ)
