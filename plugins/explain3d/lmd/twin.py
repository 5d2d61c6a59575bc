"""Memory beside a tensor's storage that holds its components, and the tensor that knows of it.

A twin belongs to a storage, not to a tensor: whatever aliases the value aliases its components in
the same way, so that views need no rule of their own and writing through a view reaches the base.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import InputError
from .rows import Rows, neighbours

if TYPE_CHECKING:
    from .decomposition import Decomposition


class Carried(Tensor):
    """A tensor with components beside it; its own storage is that of the value.

    Tensors become carried by exchange of their class and are plain again after the run, hence
    nothing may be added to the memory layout of ``torch.Tensor``.
    """

    _twin: Twin

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None) -> Any:
        """Applies ``func`` to the values, and its rule to the components."""
        from .dispatch import dispatch

        return dispatch(func, args, kwargs or {})

    def __copy__(self) -> Tensor:
        """Returns another tensor over the same memory, as ``copy.copy`` of a tensor does."""
        return self.detach()


def plain(value: Any) -> Any:
    """Returns an alias without components of a carried tensor, anything else as it is."""
    if isinstance(value, Carried):
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(Tensor)
    return value


class Twin:
    """Components of one storage.

    Attributes:
        run: The decomposition that it belongs to.
        gate: Whether the values came out of a bounded function, which makes them a gate.
        residual: 0-d float64 largest conservation error up to here, or None if not measured.
    """

    def __init__(self, run: Decomposition, value: Tensor, rows: Rows) -> None:
        """Starts with the components of ``value``, whose storage this is the twin of."""
        self.run = run
        self.gate = False
        self.residual: Tensor | None = None
        self._geometry = _geometry(value)
        self._pieces: tuple[int, list[Rows]] | None = None
        self._readers: list[weakref.ref[Twin]] = []
        self._rows = Rows(rows.ids, _laid_out_like(rows.stack, self._geometry))

    @classmethod
    def of_pieces(cls, run: Decomposition, value: Tensor, dim: int, pieces: list[Rows]) -> Twin:
        """Starts with the components of neighbouring slices along ``dim``, not put together.

        A convolution that follows a concatenation of sensors can so run each sensor over its own
        channels.
        """
        empty = Rows((), value.new_empty((0, *value.shape)))
        twin = cls(run, value, empty)
        twin._pieces = (dim, pieces)
        return twin

    def pieces(self, value: Tensor, dim: int) -> list[Rows] | None:
        """Returns the components of slices along ``dim`` that make up ``value``, if they are kept.

        They alias memory of other tensors: not to be written to.
        """
        if self._pieces is None or self._pieces[0] != dim or _geometry(value) != self._geometry:
            return None
        return self._pieces[1]

    def ids(self) -> tuple[int, ...]:
        """The numbers of the components that are not zero."""
        if self._pieces is None:
            return self._rows.ids
        return tuple(sorted({i for piece in self._pieces[1] for i in piece.ids}))

    def rows(self, value: Tensor) -> Rows:
        """Returns the components of ``value``, which aliases the storage; they alias the twin."""
        self.settle()
        shape, stride, offset = _geometry(value)
        if (shape, stride, offset) == self._geometry:
            return self._rows
        stack = self._rows.stack
        begin = offset - self._geometry[2]
        if begin < 0 or begin + _extent(shape, stride) > _extent(*self._geometry[:2]):
            raise InputError(
                'Expected a view inside the tensor that was seeded, received one that reaches '
                'beyond it: seed the whole tensor.'
            )
        start = stack.storage_offset() + begin
        view = stack.as_strided((stack.shape[0], *shape), (stack.stride(0), *stride), start)
        return Rows(self._rows.ids, view)

    def write(self, value: Tensor, rows: Rows) -> None:
        """Replaces the components of ``value``, which aliases the storage."""
        geometry = _geometry(value)
        shape = (len(rows.ids), *geometry[0])
        if geometry == self._geometry and not _overlaps(geometry):
            self._settle_readers()
            self._pieces = None
            self._rows = Rows(rows.ids, _laid_out_like(rows.stack.expand(shape), geometry))
            return
        self.grow(rows.ids)
        target = self.rows(value)
        self._settle_readers()
        for row, number in enumerate(target.ids):
            if number in rows.ids:
                target.stack[row].copy_(rows.stack[rows.ids.index(number)])
            else:
                target.stack[row].zero_()

    def writable(self, value: Tensor, ids: tuple[int, ...]) -> Rows:
        """Returns the components of ``value`` to write into, with room for ``ids``."""
        self.grow(ids)
        self._settle_readers()
        return self.rows(value)

    def grow(self, ids: tuple[int, ...]) -> None:
        """Makes room for components with these numbers."""
        self.settle()
        union = tuple(sorted({*self._rows.ids, *ids}))
        if union != self._rows.ids:
            stack = _laid_out_like(self._rows.select(union).stack, self._geometry)
            self._rows = Rows(union, stack)

    def settle(self) -> None:
        """Puts the components of slices together, where they were not."""
        if self._pieces is None:
            return
        (dim, pieces), self._pieces = self._pieces, None
        rows = neighbours(pieces, dim)
        self._rows = Rows(rows.ids, _laid_out_like(rows.stack, self._geometry))

    def read_by(self, other: Twin) -> None:
        """Notes that ``other`` has pieces in this memory, to be copied before it is written to."""
        self._readers.append(weakref.ref(other))

    def _settle_readers(self) -> None:
        for reader in self._readers:
            twin = reader()
            if twin is not None:
                twin.settle()
        self._readers.clear()


def _geometry(value: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    with torch._C.DisableTorchFunctionSubclass():
        return tuple(value.shape), value.stride(), value.storage_offset()


def _overlaps(geometry: tuple) -> bool:
    return any(s == 0 and n > 1 for n, s in zip(geometry[0], geometry[1], strict=True))


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Returns how many elements of memory lie between the first and the last, with both."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))


def _laid_out_like(stack: Tensor, geometry: tuple) -> Tensor:
    """Returns ``stack`` with each component laid out in memory as the value is."""
    shape, stride, _ = geometry
    extent = _extent(shape, stride)
    same = all(n == 1 or a == b for n, a, b in zip(shape, stack.stride()[1:], stride, strict=True))
    if stack.numel() == 0 or (same and (stack.shape[0] == 1 or stack.stride(0) >= extent)):
        return stack
    out = torch.empty_strided(
        (stack.shape[0], *shape), (extent, *stride), dtype=stack.dtype, device=stack.device
    )
    return out.copy_(stack)


def same_storage(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors alias the same storage."""
    try:
        return a.untyped_storage()._cdata == b.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # A wrapper without storage, as of torch.func.
        return False
