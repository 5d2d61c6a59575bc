"""Copies and rearrangements. True views need no rule: components alias as values do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..call import Call
from ..registry import forms, rule
from ..rows import Rows, neighbours
from ..twin import Carried, plain


def by_row(function: Callable[[Tensor], Tensor], rows: Rows, like: Tensor) -> Rows:
    """Applies a linear function to each component by itself; ``like`` has the result's shape."""
    if not rows.ids:
        return Rows((), like.new_empty((0, *like.shape)))
    return Rows(rows.ids, torch.stack([function(row) for row in rows.stack]))


def apply_to_each(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The rule of functions that are linear in their first argument: applied to each component.

    Other tensors among the arguments (indices, masks) are constants.
    """
    first, *rest = args
    name = None
    if not args:
        name, first = next(iter(kwargs.items()))
        kwargs = {k: v for k, v in kwargs.items() if k != name}
    rest, kwargs = call.constants('arguments', (rest, kwargs))
    rows = call.rows(first)

    def function(row: Tensor) -> Any:
        return (
            call.func(row, *rest, **kwargs) if name is None else call.func(**{name: row}, **kwargs)
        )

    out = call.plain()
    if isinstance(out, Tensor):
        if isinstance(out, Carried):
            return out
        base = call.aliases(out)
        if base is not None and out.dtype == base.dtype:
            return call.carry_view(out, base)
        return call.carry(out, by_row(function, rows, out))
    results = [function(row) for row in rows.stack]
    parts = [
        call.carry(
            o, Rows(rows.ids, torch.stack([r[i] for r in results]) if results else o[None][:0])
        )
        for i, o in enumerate(out)
    ]
    return type(out)(parts)


#: Copies where the result cannot be a view, views where it can.
rule(
    *forms('reshape', 'flatten', 'unflatten', 'ravel', 'clone', 'contiguous', 'reshape_as'),
    *forms('repeat', 'tile', 'repeat_interleave', 'roll', 'rot90', 'flip', 'fliplr', 'flipud'),
    *forms('tril', 'triu', 'take_along_dim', 'take', 'pixel_shuffle', 'pixel_unshuffle'),
    *forms('channel_shuffle', 'native_channel_shuffle', 'diag', 'diag_embed', 'cpu', 'cuda'),
    *forms('im2col', 'col2im', 'unfold_copy', 'view_copy', 'to_dense', 'combinations'),
    F.fold,
    F.unfold,
)(apply_to_each)


@rule(
    Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.double, Tensor.half,
    Tensor.bfloat16, Tensor.int, Tensor.long, Tensor.bool, Tensor.short, Tensor.char, Tensor.byte,
)  # fmt: skip
def _converted(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    out = call.plain()
    if not isinstance(out, Tensor) or isinstance(out, Carried) or not out.is_floating_point():
        return out
    if not call.is_carried(input):
        return out
    rows = call.rows(input)
    return call.carry(out, Rows(rows.ids, rows.stack.to(out.device, out.dtype)))


@rule(
    *forms('zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like'),
    *forms('new_zeros', 'new_ones', 'new_empty', 'new_full', 'randint_like'),
    Tensor.grad.__get__, Tensor.new,
)  # fmt: skip
def _unrelated(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.plain()


@rule(Tensor.view_as, Tensor.expand_as)
def _shaped_as(call: Call, input: Tensor, other: Tensor) -> Tensor:
    out = call.plain()
    base = call.aliases(out)  # Of ``other`` only the shape matters.
    return out if base is None else call.carry_view(out, base)


@rule(Tensor.__deepcopy__)
def _deepcopy(call: Call, input: Tensor, memo: dict) -> Tensor:
    rows = call.rows(input)
    # torch refuses to copy subclasses.
    out = memo[id(input)] = call.plain(plain(input), memo)
    return call.carry(out, Rows(rows.ids, rows.stack.clone()))


@rule(torch.cat, torch.concat, torch.concatenate)
def _cat(call: Call, tensors: Sequence[Tensor], dim: int = 0, **kwargs: Any) -> Tensor:
    dim = kwargs.get('axis', dim)
    tensors = call.constants_among(tensors)
    out = call.plain()
    pieces = []
    for tensor in tensors:
        if tensor.dim() == 1 and tensor.numel() == 0 and out.dim() > 1:
            continue  # torch ignores these.
        if call.is_carried(tensor):
            pieces += call.pieces(tensor, dim % out.dim())
        else:
            # A copy: the network may write into it while the pieces are not put together yet.
            pieces.append(call.rows(tensor.to(out.dtype, copy=bool(call.constant_ids))))
    if len({piece.ids for piece in pieces}) == 1:
        return call.carry(out, neighbours(_alike(pieces, out), dim % out.dim()))
    return call.carry_pieces(out, dim, pieces)


def _alike(pieces: list[Rows], out: Tensor) -> list[Rows]:
    return [Rows(piece.ids, piece.stack.to(out.dtype)) for piece in pieces]


@rule(torch.stack)
def _stack(call: Call, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    tensors = call.constants_among(tensors)
    out = call.plain()
    dim = dim % out.dim()
    pieces = [call.rows(tensor) for tensor in tensors]
    pieces = [Rows(p.ids, p.stack.unsqueeze(dim + 1).to(out.dtype)) for p in pieces]
    return call.carry(out, neighbours(pieces, dim))


@rule(F.pad)
def _pad(
    call: Call, input: Tensor, pad: Any, mode: str = 'constant', value: float | None = None
) -> Tensor:
    rows = call.rows(input)
    out = call.plain()
    padded = by_row(lambda row: F.pad(row, pad, mode), rows, out)
    if mode != 'constant' or not value:
        return call.carry(out, padded)
    return call.carry(
        out, call.constant(padded, lambda: F.pad(torch.zeros_like(input), pad, mode, value))
    )


@rule(torch.constant_pad_nd)
def _constant_pad(call: Call, input: Tensor, pad: Any, value: float = 0) -> Tensor:
    return _pad(call, input, pad, 'constant', value)


@rule(
    torch.hstack, torch.vstack, torch.dstack, torch.column_stack, torch.row_stack,
    torch.block_diag,
)  # fmt: skip
def _put_together(call: Call, *args: Any) -> Tensor:
    given = call.constants_among(args[0] if isinstance(args[0], (tuple, list)) else args)
    rows = [call.rows(tensor) for tensor in given]
    ids = tuple(sorted({i for r in rows for i in r.ids}))
    stacks = [r.select(ids).stack for r in rows]
    wrap = call.func is not torch.block_diag
    out = call.plain()
    parts = [
        call.func([s[k] for s in stacks]) if wrap else call.func(*[s[k] for s in stacks])
        for k in range(len(ids))
    ]
    return call.carry(out, Rows(ids, torch.stack(parts) if parts else out[None][:0]))
