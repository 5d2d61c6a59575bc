"""Sparse convolutions of spconv, and of the copy that mmcv carries: linear but for their bias.

Which voxels there are is a selection and belongs to nobody. Batch normalisation, activations and
sums act on ``features``, and ``dense()`` writes them into a tensor of zeros: torch's dispatch sees
these.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ...core.capture import is_sparse_convolution, with_features
from ...core.errors import NotApplicableError
from ...core.session import overridden
from ..call import Call
from ..registry import module_rule
from ..twin import plain
from ..voxel_order import reordered
from .views import by_row


@module_rule(where=is_sparse_convolution)
def _sparse_convolution(call: Call, module: nn.Module, sparse: Any, *args: Any) -> Any:
    """Runs the module itself on each component's features, at the value's voxels."""
    if args:
        raise NotApplicableError(
            f'The sparse convolution {call.module!r} adds another tensor in the same kernel: '
            'expected one input.'
        )
    rows = call.rows(sparse.features)
    out = call.plain(with_features(sparse, plain(sparse.features)))
    own = _with_tables(sparse, out, module)
    with ExitStack() as stack:
        stack.enter_context(overridden(module, 'bias', None))
        if call.run.differentiable:  # In eval mode spconv leaves its autograd function out.
            stack.enter_context(overridden(module, 'training', True))
        parts = by_row(lambda row: _convolved(call.func, own, row, out), rows, out.features)
    bias = getattr(module, 'bias', None)
    call.carry(out.features, parts if bias is None else call.constant(parts, bias))
    return out


def _with_tables(sparse: Any, out: Any, module: nn.Module) -> Any:
    """Returns the input with the tables of neighbours that the value's run has made, if of use.

    spconv takes a table from there for submanifold and inverse convolutions, and refuses to for
    the others.
    """
    own = with_features(sparse, plain(sparse.features))
    if module.subm or module.inverse:
        own.indice_dict = out.indice_dict
    return own


def _convolved(function: Callable, sparse: Any, row: Tensor, out: Any) -> Tensor:
    """Returns the (N_out, C) features of one component, in the order of the value's voxels."""
    found = function(with_features(sparse, row.contiguous()))
    # Kernels of a GPU may list the same voxels in another order.
    return reordered(found, out.indices).features
