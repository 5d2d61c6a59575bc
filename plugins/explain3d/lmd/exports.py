"""Decomposed values that leave torch: what came out of ``numpy()`` or ``item()`` has no components.

When such a value comes back as a new tensor, it counts as a constant and all of it as the bias, and
the parts still add up. Hence arrays and lists of decomposed values are refused where they leave
(``Rules.exports``). A single number may steer the network (``if x.max().item() > 0``): the parts
are exact for the path that is taken. It is noted, warned of once a line, and refused where it comes
back as anything but a factor.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..core.errors import UnknownOperationError

if TYPE_CHECKING:
    from .decomposition import Decomposition

#: Packages whose frames are not the user's code.
_OURS = ('explain3d.lmd', 'explain3d.core', 'torch', 'numpy', 'copy', 'copyreg', 'pickle')


class ExportWarning(UserWarning):
    """Decomposed values were read out of torch, where their components are lost."""


@dataclass(frozen=True)
class Export:
    """Decomposed values that were read out of torch.

    Attributes:
        operation: What read them.
        module: Path of the module that ran.
        file: File of the code that called it.
        line: Its line there.
        shape: Shape of the tensor; of a number, that of the tensor of one element.
    """

    operation: str
    module: str
    file: str
    line: int
    shape: tuple[int, ...]

    @property
    def place(self) -> str:
        """File and line."""
        return f'{self.file}:{self.line}'


class ReadNumber(float):
    """A number that was read from a decomposed tensor, or computed from one that was.

    Attributes:
        export: Where it was read.
        run: A weak reference to the decomposition.
    """

    export: Export
    run: weakref.ref

    def __reduce__(self) -> tuple:
        return float, (float(self),)


def _arithmetic(name: str) -> Callable:
    plain = getattr(float, name)

    def operator(self: ReadNumber, *others: Any) -> Any:
        out = plain(self, *others)
        return _following(self, out) if isinstance(out, float) else out

    operator.__name__ = name
    return operator


for _name in ('add', 'sub', 'mul', 'truediv', 'floordiv', 'mod', 'pow'):
    for _prefix in ('', 'r'):
        setattr(ReadNumber, f'__{_prefix}{_name}__', _arithmetic(f'__{_prefix}{_name}__'))
for _name in ('neg', 'pos', 'abs'):
    setattr(ReadNumber, f'__{_name}__', _arithmetic(f'__{_name}__'))


def _following(source: ReadNumber, value: float) -> ReadNumber:
    number = ReadNumber(value)
    number.export, number.run = source.export, source.run
    return number


def note(run: Decomposition, operation: str, tensor: Tensor) -> Export:
    """Returns where ``tensor`` is being read, and adds it to ``run.exports``."""
    found = Export(operation, run.module, *_user_line(), tuple(tensor.shape))
    run.exports.append(found)
    return found


def left(run: Decomposition, operation: str, tensor: Tensor, policy: str) -> None:
    """Refuses, warns of or notes that all values of a decomposed tensor leave torch.

    Raises:
        UnknownOperationError: If the policy is 'refuse'.
    """
    export = note(run, operation, tensor)
    if policy != 'allow':
        kind = type(run.model.get_submodule(export.module)).__name__
        _complain(
            export,
            f'module {kind} in module {export.module!r} takes decomposed values of shape '
            f'{export.shape} out of torch by {operation} at {export.place}, and plain ones come '
            'out: their components are lost, and what is computed from them would count as the '
            'bias.',
            kind,
            policy == 'refuse',
        )


def number_read(run: Decomposition, operation: str, tensor: Tensor, value: Any, policy: str) -> Any:
    """Notes a number that is read from a decomposed tensor, and warns once for a line.

    Returns:
        ``value``; a ``ReadNumber`` in place of a float that ``item`` or ``tolist`` gave.
    """
    export = note(run, operation, tensor)
    if policy == 'allow' or not isinstance(value, float):
        return value
    _warn(
        export,
        f'{operation} reads a number from a decomposed tensor in module {export.module!r}. The '
        'components are exact for the path that it chooses, and where it is a factor. Whatever '
        'else is computed from it counts as the bias.',
    )
    number = ReadNumber(value)
    number.export, number.run = export, weakref.ref(run)
    run.has_read = True
    return number


def came_back(run: Decomposition, operation: str, number: ReadNumber, policy: str) -> None:
    """Refuses or warns of a number that enters a tensor again, as something else than a factor.

    Raises:
        UnknownOperationError: If the policy is 'refuse'.
    """
    if policy == 'allow' or number.run() is not run:
        return
    file, line = _user_line()
    back = Export(operation, run.module, file, line, ())
    _complain(
        back,
        f'{operation} at {back.place} uses a number that {number.export.operation} read from a '
        f'decomposed tensor at {number.export.place} (module {number.export.module!r}): its '
        'components are lost, and it would count as the bias.',
        type(run.model.get_submodule(back.module)).__name__,
        policy == 'refuse',
    )


def read_numbers(*values: Any) -> Iterator[ReadNumber]:
    """Yields the numbers in nested arguments that were read from decomposed tensors."""
    for value in values:
        if isinstance(value, ReadNumber):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from read_numbers(*value)
        elif isinstance(value, dict):
            yield from read_numbers(*value.values())


def _complain(export: Export, what: str, kind: str, refused: bool) -> None:
    if not refused:
        _warn(export, what)
        return
    # No TypeError: torch's binary operators would turn it into one about unsupported operands.
    raise UnknownOperationError(
        f'No LMD rule: {what} Expected torch operations only: write it with tensors, or end the '
        "decomposition before it (the module's input stage in stop or outputs), or register a rule "
        f'for the module with @explain3d.lmd.module_rule({kind}). Where nothing comes back, allow '
        f"it by the rule per_module={{{export.module!r}: dict(exports='warn')}}."
    )


#: Which operations of which lines were warned of. Python's own registry of warnings is emptied by
#: whatever changes a filter, as torch does in the middle of a network.
_SAID: set[tuple[str, str]] = set()


def _warn(export: Export, what: str) -> None:
    if (export.place, export.operation) not in _SAID:
        _SAID.add((export.place, export.operation))
        warnings.warn_explicit(what, ExportWarning, export.file, export.line)


def _user_line() -> tuple[str, int]:
    """Returns file and line of the innermost frame that is neither ours nor torch's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_globals.get('__name__', '')
        if not any(name == each or name.startswith(f'{each}.') for each in _OURS):
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
