"""A stack of the components that a tensor has; those that are zero are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Some components of a tensor, each under its number.

    Attributes:
        ids: The numbers of the n components that are not zero, ascending: 0 to M - 1 the
            modalities, M the bias, M + 1 the value of the frozen network.
        stack: (n, *shape) the components.
    """

    ids: tuple[int, ...]
    stack: Tensor

    def lifted(self, ndim: int) -> Tensor:
        """Returns (n, 1, ..., 1, *shape) so that it broadcasts with a tensor of ``ndim`` dims."""
        missing = ndim - (self.stack.dim() - 1)
        if missing <= 0:
            return self.stack
        return self.stack.reshape(len(self.ids), *[1] * missing, *self.stack.shape[1:])

    def select(self, ids: Sequence[int]) -> Rows:
        """Returns the components with these numbers, zeros for those that are left out here."""
        ids = tuple(ids)
        if ids == self.ids:
            return self
        stack = self.stack.new_zeros((len(ids), *self.stack.shape[1:]))
        for row, number in enumerate(ids):
            if number in self.ids:
                stack[row] = self.stack[self.ids.index(number)]
        return Rows(ids, stack)

    def without(self, ids: Sequence[int]) -> Rows:
        """Returns the components except those with these numbers."""
        kept = tuple(i for i in self.ids if i not in ids)
        return self if kept == self.ids else self.select(kept)

    def __add__(self, other: Rows) -> Rows:
        """Adds two tensors' components by number, with broadcasting."""
        ndim = max(self.stack.dim(), other.stack.dim()) - 1
        a, b = self.lifted(ndim), other.lifted(ndim)
        if self.ids == other.ids:
            return Rows(self.ids, a + b)
        shape = torch.broadcast_shapes(a.shape[1:], b.shape[1:])
        if not other.ids and a.shape[1:] == shape:
            return Rows(self.ids, a)
        ids = tuple(sorted({*self.ids, *other.ids}))
        stack = a.new_zeros((len(ids), *shape), dtype=torch.promote_types(a.dtype, b.dtype))
        for rows, given in ((a, self.ids), (b, other.ids)):
            for row, number in enumerate(given):
                stack[ids.index(number)] += rows[row]
        return Rows(ids, stack)

    def added(self, ids: Sequence[int], constant: Tensor | float) -> Rows:
        """Returns the components with ``constant`` added to each of those with these numbers.

        Args:
            ids: The components that receive it.
            constant: A number, or a tensor that broadcasts to ``shape``.
        """
        ids = tuple(ids)
        if not ids:
            return self
        # The stack may be another tensor's memory: never written to here.
        rows = self.select(tuple(sorted({*self.ids, *ids})))
        shape = rows.stack.shape[1:]
        if isinstance(constant, Tensor):
            shape = torch.broadcast_shapes(shape, constant.shape)
        weight = [float(i in ids) for i in rows.ids]
        if all(weight):
            return Rows(rows.ids, rows.lifted(len(shape)) + constant)
        stack = rows.lifted(len(shape)).expand(len(rows.ids), *shape).clone()
        for number in ids:
            stack[rows.ids.index(number)] += constant
        return Rows(rows.ids, stack)


def neighbours(pieces: Sequence[Rows], dim: int) -> Rows:
    """Concatenates the components of tensors along dimension ``dim`` of the tensors."""
    ids = tuple(sorted({i for piece in pieces for i in piece.ids}))
    stacks = [piece.select(ids).stack for piece in pieces]
    return Rows(ids, torch.cat(stacks, dim + 1))


def total(pieces: Sequence[Rows]) -> Rows:
    """Adds components by number; where none meet, they are only put beside each other."""
    ids = [i for piece in pieces for i in piece.ids]
    if len(set(ids)) == len(ids) and len(pieces) > 1:
        order = sorted(range(len(ids)), key=ids.__getitem__)
        stack = torch.cat([piece.stack for piece in pieces])
        if order != list(range(len(ids))):
            stack = stack[order]
        return Rows(tuple(sorted(ids)), stack)
    out = pieces[0]
    for piece in pieces[1:]:
        out = out + piece
    return out
