"""One operation on carried tensors, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .frozen import RecordedOperation, kept
from .nested import tensors
from .rows import Rows
from .settings import Rules
from .twin import Carried, Twin, same_storage

if TYPE_CHECKING:
    from .decomposition import Decomposition


class Call:
    """One call of a function with carried tensors among its arguments.

    Within a rule, carried tensors behave as plain ones and no graph is built.

    Attributes:
        run: The decomposition.
        func: The function as it was called.
        operation: Its name.
        module: Path of the module that it runs in.
        rules: The rules at this module.
        carried: The carried tensors among its arguments.
        size: Number M of modalities; also the number of the bias among components.
    """

    def __init__(
        self,
        run: Decomposition,
        func: Callable,
        args: tuple,
        kwargs: dict,
        carried: list[Carried],
        name: str,
    ) -> None:
        """Notes what is called, and finds its place in the frozen record if there is one."""
        self.run, self.func, self.args, self.kwargs = run, func, args, kwargs
        self.carried, self.operation = carried, name
        self.module = run.module
        self.rules: Rules = run.rules_here()
        self.size = len(run.modalities)
        self._grad = torch.is_grad_enabled()
        self._replays = run.frozen is not None
        self._record: RecordedOperation | None = None
        if run.remembers:
            shapes = tuple(tuple(tensor.shape) for tensor in carried)
            self._record = run.remember(RecordedOperation(name, self.module, shapes))

    def plain(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the network's own operation on the values, on the network's own arguments.

        To be called once by every rule, after all that needs the old values of an in-place
        operation.
        """
        args, kwargs = (args, kwargs) if args or kwargs else (self.args, self.kwargs)
        with torch.set_grad_enabled(self._grad):
            return self.func(*args, **kwargs)

    @property
    def constant_ids(self) -> tuple[int, ...]:
        """The components that a constant goes to: the bias, where it is carried."""
        return self.run.constant_ids

    @property
    def all_ids(self) -> tuple[int, ...]:
        """All modalities, and the bias and the frozen value where they are carried."""
        return (*range(self.size), *self.constant_ids)

    def is_carried(self, value: Any) -> bool:
        """Whether ``value`` has components."""
        return isinstance(value, Carried)

    def is_constant(self, value: Any) -> bool:
        """Whether no modality has a part in ``value``."""
        return not isinstance(value, Carried) or all(i >= self.size for i in value._twin.ids())

    def rows(self, value: Tensor | float) -> Rows:
        """Returns the components of ``value``; those of a constant are the bias's.

        They may alias memory: not to be written to.
        """
        if isinstance(value, Carried):
            return value._twin.rows(value)
        if not isinstance(value, Tensor):
            like = self.carried[0]
            # A kernel fills it: a copy from the host would wait for the device.
            value = torch.full((), value, dtype=like.dtype, device=like.device)
        ids = self.constant_ids
        return Rows(ids, value.detach().expand(len(ids), *value.shape))

    def pieces(self, value: Tensor, dim: int) -> list[Rows]:
        """Returns the components of neighbouring slices along ``dim``: one slice, usually."""
        pieces = value._twin.pieces(value, dim % value.dim()) if value.dim() else None
        return pieces or [self.rows(value)]

    def bias(self, value: Tensor, rows: Rows) -> Tensor:
        """Returns the bias component of ``value``: carried, or the difference (production)."""
        if not self.constant_ids:
            if not rows.ids:
                return value.detach()
            return value.detach() - rows.stack.sum(0)
        return rows.select((self.size,)).stack[0]

    def constant(self, rows: Rows, constant: Tensor | float | Callable) -> Rows:
        """Adds a constant to the bias component, where it is carried.

        Args:
            rows: The components.
            constant: A number, a tensor that broadcasts, or a function that gives it.
        """
        if not self.constant_ids:
            return rows
        value = constant() if callable(constant) else constant
        return rows if value is None else rows.added(self.constant_ids, value)

    def at_operating_point(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns what depends on the operating point: computed, or from the frozen record."""
        if self._record is None:
            return compute()
        items = self._record.items
        if self._replays:
            return items[name]
        items[name] = compute()
        return items[name]

    def noted(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns what is computed and noted in a record, and None where a record lacks it."""
        if self._replays:
            return self._record.items.get(name)
        return self.at_operating_point(name, compute)

    def constants(self, name: str, value: Any) -> Any:
        """Returns plain arguments of the operation, from the frozen record if there is one.

        The frozen network is an affine map of the seeded tensors: all else that enters it (masks,
        indices, other tensors) is as it was recorded. Parameters are not copied.
        """
        if self._record is None or isinstance(value, nn.Parameter):
            return value
        return self.at_operating_point(name, lambda: kept(value))

    def constants_among(self, values: Any) -> list:
        """Returns a list of operands in which the plain ones are as ``constants`` gives them."""
        return [
            value if self.is_carried(value) else self.constants(f'operand {i}', value)
            for i, value in enumerate(values)
        ]

    def carry(self, out: Tensor, rows: Rows, gate: bool = False) -> Tensor:
        """Returns ``out`` with these components; those of an in-place result are overwritten.

        Args:
            out: What ``plain`` gave, or one tensor of it.
            rows: Its components, which broadcast to its shape.
            gate: Whether ``out`` is bounded, hence frozen when it meets another factor.

        Raises:
            InputError: If the components do not fit ``out``.
        """
        rows = self._fitted(out, rows)
        if isinstance(out, Carried):
            out._twin.write(out, rows)
        else:
            self.run.carry(out, Twin(self.run, out, rows))
        return self.finished(out, gate)

    def carry_pieces(self, out: Tensor, dim: int, pieces: list[Rows]) -> Tensor:
        """Returns ``out``, whose slices along ``dim`` have these components."""
        dim = dim % out.dim()
        pieces = [Rows(p.ids, p.stack.to(out.dtype)) for p in pieces]
        twin = Twin.of_pieces(self.run, out, dim, pieces)
        for tensor in self.carried:
            tensor._twin.read_by(twin)
        self.run.carry(out, twin)
        return self.finished(out, False)

    def carry_constant(self, out: Tensor, gate: bool = False, name: str = '') -> Tensor:
        """Returns ``out`` as a constant, all of it the bias; ``name`` tells several apart."""
        value = self.at_operating_point(f'constant {name}', lambda: out.detach().clone())
        ids = self.constant_ids
        rows = Rows(ids, value.expand(len(ids), *value.shape))
        return self.carry(out, rows, gate)

    def carry_view(self, out: Tensor, of: Carried) -> Tensor:
        """Returns ``out``, which aliases the carried tensor ``of``, as a carried tensor."""
        return self.run.carry(out, of._twin)

    def aliases(self, out: Tensor) -> Carried | None:
        """Returns the carried argument whose storage ``out`` shares, if there is one."""
        return next((t for t in self.carried if same_storage(t, out)), None)

    def _fitted(self, out: Tensor, rows: Rows) -> Rows:
        shape = (len(rows.ids), *out.shape)
        stack = rows.lifted(out.dim())
        if stack.shape != shape:
            try:
                stack = stack.expand(shape).contiguous()
            except RuntimeError:
                raise InputError(
                    f'The components of {self.operation} in module {self.module!r} have shape '
                    f'{tuple(stack.shape[1:])}, expected {tuple(out.shape)}: '
                    + (
                        'record the same network on an input of the same shapes.'
                        if self._replays
                        else 'its rule is wrong.'
                    )
                ) from None
        stack = stack.to(out.dtype)
        # A result must not share memory with the components of an argument or with a record.
        if stack.numel() and (self._is_kept(stack) or self._is_lent(stack)):
            stack = stack.clone()
        return Rows(rows.ids, stack)

    def _is_lent(self, stack: Tensor) -> bool:
        if any(same_storage(stack, t) for _, t in tensors((self.args, self.kwargs))):
            return True
        return any(same_storage(stack, t._twin._rows.stack) for t in self.carried) or any(
            same_storage(stack, piece.stack)
            for t in self.carried
            if t._twin._pieces
            for piece in t._twin._pieces[1]
        )

    def _is_kept(self, stack: Tensor) -> bool:
        if self._record is None:
            return False
        return any(same_storage(stack, t) for _, t in tensors(self._record.items))

    def finished(self, out: Tensor, gate: bool) -> Tensor:
        """Measures a result, in check mode; for rules that write components by themselves."""
        out._twin.gate = gate
        if self.run.checks:
            self.run.measure(out, self)
        return out
