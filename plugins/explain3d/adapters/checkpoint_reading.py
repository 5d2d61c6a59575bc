"""Checkpoints, written whole and read without running code of theirs.

From torch 2.6 on ``torch.load`` makes only objects of types that are on a list. A checkpoint that
MMEngine writes while it trains is refused then: its message hub holds ``HistoryBuffer`` objects,
NumPy arrays and scalars, and functions that pickle looks up with ``getattr``. None of these can be
put on the list as it is: with ``getattr`` a file reaches ``exec``, and a ``HistoryBuffer`` or a
``numpy.dtype`` takes over whatever state the file gives it.

So while a checkpoint is read, and only then, the names stand for the classes below: holders that
take nothing but numbers and text of the expected form, and are made into the real objects when
all is read. What they refuse raises ``pickle.UnpicklingError`` inside torch.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import pickle
import re
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch

from ..core.errors import UnsafeCheckpointError
from ..core.results_atomic import atomic_write

_HISTORY = 'mmengine.logging.history_buffer'
_SCHEDULER = 'mmengine.optim.scheduler.param_scheduler'
#: Functions that MMEngine's checkpoints name, by the class that ``getattr`` takes them from.
_STATISTICS = ('min', 'max', 'current', 'mean')
_ANNEALING = ('_annealing_cos', '_annealing_linear')
_CODES = re.compile(r'b1|[iu][1248]|f[248]|f16|c8|c16|[SU]\d{1,6}')
#: Keys of a pickled ``HistoryBuffer``; its statistics are not taken from the file.
_HISTORY_KEYS = {'max_length', '_log_history', '_count_history', 'statistics_methods'}


def read_checkpoint(
    path: str | os.PathLike, map_location: Any = 'cpu', *, trust: bool = False
) -> Any:
    """Returns the content of a checkpoint: tensors, numbers, text, and MMEngine's training state.

    Args:
        path: The file.
        map_location: As in ``torch.load``.
        trust: Whether to unpickle whatever the file holds. It can run any code then.

    Raises:
        FileNotFoundError: If there is no such file.
        UnsafeCheckpointError: If it holds other objects, or is damaged.
    """
    if trust:
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        return guarded(torch.load)(path, map_location=map_location, weights_only=True)
    except (TypeError, AttributeError, LookupError, ValueError, EOFError, struct.error) as error:
        raise _refused(path, error) from error  # Steps of a pickle that no writer makes.


def write_checkpoint(content: Any, path: str | os.PathLike) -> None:
    """Writes a checkpoint: it is complete, or as it was before. Its folder is made if needed.

    Args:
        content: Tensors, numbers and text.
        path: The file; one that is there is replaced.

    Raises:
        ResultFileError: If it cannot be written.
    """
    # An open file: with a name torch would put the temporary one into the archive.
    with atomic_write(path, 'the checkpoint') as file:
        torch.save(content, file)


def _refused(path: Any, error: Exception) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        "Expected a checkpoint of tensors, numbers, text and the state of MMEngine's training, "
        f'received {path}, which torch does not load safely ({_reason(error)}): it is damaged, or '
        'may run code. If you trust whoever wrote it, keep its weights alone: '
        'tools/export_checkpoint.py SOURCE TARGET --trust.'
    )


def _reason(error: Exception) -> str:
    """The sentence of torch's message that names the object, without its advice."""
    found = re.search(r'(?:WeightsUnpickler error: |(?=Trying to ))([^\n]*)', str(error))
    return (found[1] if found else (str(error).splitlines() or [type(error).__name__])[0]).strip()


def guarded(load: Callable) -> Callable:
    """Returns a function like ``load``, whose ``torch.load`` also reads MMEngine's checkpoints.

    It raises ``UnsafeCheckpointError`` where torch refuses the file.

    Args:
        load: Reads the checkpoint that its first argument names, as torch is set up: where that
            unpickles everything (before torch 2.6 by default), this does too.
    """

    @functools.wraps(load)
    def wrapper(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            with engine_objects():
                return restored(load(path, *args, **kwargs))
        except (pickle.UnpicklingError, RecursionError) as error:
            raise _refused(path, error) from error

    wrapper.reads_engine_checkpoints = True
    return wrapper


_LOCK = threading.Lock()
_readers = 0


@contextlib.contextmanager
def engine_objects() -> Iterator[None]:
    """Puts the holders on torch's list of safe types, and takes them off again.

    Several threads may be inside at a time. torch before 2.5 has no such list.
    """
    global _readers
    if not hasattr(torch.serialization, 'safe_globals'):
        yield
        return
    allowed = torch.serialization.safe_globals(_STAND_INS)
    with _LOCK:
        _readers += 1
        allowed.__enter__()
    try:
        yield
    finally:
        with _LOCK:
            _readers -= 1
            if not _readers:
                allowed.__exit__(None, None, None)


def restored(content: Any) -> Any:
    """Returns what was read with the holders in it made into the objects that they stand for."""
    return _restored(content, set())


def _restored(value: Any, seen: set[int]) -> Any:
    if isinstance(value, _Holder):
        return value.object()
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_restored(item, seen) for item in value)
    if id(value) in seen or not isinstance(value, (dict, list, set)):
        return value
    seen.add(id(value))
    if isinstance(value, dict):
        if any(isinstance(key, _Holder) for key in value):
            raise pickle.UnpicklingError('a dictionary has an array or a function as key')
        value.update({key: _restored(item, seen) for key, item in value.items()})
    elif isinstance(value, list):
        value[:] = [_restored(item, seen) for item in value]
    elif any(isinstance(item, _Holder) for item in value):
        raise pickle.UnpicklingError('a set has an array or a function in it')
    return value


class _Holder:
    """What stands for an object while a checkpoint is read; has no attributes to be set."""

    __slots__ = ()

    def object(self) -> Any:
        """Returns the object."""
        raise pickle.UnpicklingError(f'a {type(self).__name__} is not complete')


def _refuse(what: str, value: Any) -> NoReturn:
    raise pickle.UnpicklingError(f'Unsupported {what}: {value!r:.80}')


class _Dtype(_Holder):
    """Stands for ``numpy.dtype``: simple numbers and text, little- or big-endian."""

    __slots__ = ('value',)

    def __init__(self, code: Any, *_: Any) -> None:
        if type(code) is not str or not _CODES.fullmatch(code):
            _refuse('numpy.dtype', code)
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # version, byte order, subarray, names, fields, sizes, flags: only the order can differ.
        order = state[1] if type(state) is tuple and len(state) == 8 else None
        plain = type(order) is str and all(part is None for part in state[2:5])
        if not plain or order not in ('<', '>', '|', '='):
            _refuse('state of a numpy.dtype', state)
        if order in ('<', '>'):
            self.value = self.object().newbyteorder(order)

    def object(self) -> np.dtype:
        """Returns the type."""
        if not hasattr(self, 'value'):
            _refuse('numpy.dtype', 'without a code')
        return self.value


class _Array(_Holder):
    """Stands for ``numpy.ndarray``: its bytes must be as many as its shape says."""

    __slots__ = ('value',)

    def __init__(self, *_: Any) -> None:
        _refuse('call', 'numpy.ndarray')

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            _refuse('state of a numpy.ndarray', state)
        _, shape, dtype, fortran, data = state
        self.value = _values(shape, dtype, data, 'F' if fortran is True else 'C')

    def object(self) -> np.ndarray:
        """Returns the array."""
        if not hasattr(self, 'value'):
            _refuse('numpy.ndarray', 'without content')
        return self.value


def _values(shape: Any, dtype: Any, data: Any, order: str = 'C') -> np.ndarray:
    sizes = type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape)
    if not sizes or type(dtype) is not _Dtype or type(data) is not bytes:
        _refuse('content of a numpy.ndarray', (shape, dtype))
    kind = dtype.object()
    if kind.itemsize == 0 or math.prod(shape) * kind.itemsize != len(data):
        _refuse('content of a numpy.ndarray', f'{len(data)} bytes of {kind} for the shape {shape}')
    return np.ndarray(shape, kind, data, order=order).copy(order)


def _row(value: Any) -> np.ndarray:
    """A row of numbers of a history."""
    row = value.object() if type(value) is _Array else None
    if row is None or row.ndim != 1 or row.dtype.kind not in 'iuf':
        _refuse('history', value if row is None else (row.shape, str(row.dtype)))
    return row


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        _refuse('type of array', kind)
    return _Array.__new__(_Array)


def _scalar(dtype: Any, data: Any) -> np.generic:
    if type(dtype) is _Dtype and dtype.object().itemsize == 0:
        return dtype.object().type()
    return _values((), dtype, data)[()]


def _bytes(*args: Any) -> bytes:
    """Stands for ``bytes``, by which pickle writes those that are empty."""
    return b'' if not args else _refuse('bytes', args)


class _History(_Holder):
    """Stands for MMEngine's ``HistoryBuffer``: two rows of numbers and the most to keep."""

    __slots__ = ('state',)

    def __init__(self, *_: Any) -> None:
        _refuse('call', 'HistoryBuffer')

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or not set(state) <= _HISTORY_KEYS:
            _refuse('state of a HistoryBuffer', state)
        methods = state.get('statistics_methods', {})
        if type(methods) is not dict or not all(
            type(m) is _Function and m.owner is _History and m.name == name
            for name, m in methods.items()
        ):
            _refuse('statistics of a HistoryBuffer', methods)
        most = state.get('max_length')
        log, counts = _row(state.get('_log_history')), _row(state.get('_count_history'))
        if type(most) is not int or most < 1 or len(log) != len(counts):
            _refuse('HistoryBuffer', f'{len(log)} values, {len(counts)} counts of {most!r:.20}')
        self.state = (log, counts, most)

    def object(self) -> Any:
        """Returns MMEngine's object; the three values where MMEngine is not installed."""
        if not hasattr(self, 'state'):
            _refuse('HistoryBuffer', 'without content')
        try:
            from mmengine.logging import HistoryBuffer
        except ImportError:
            return self.state
        log, counts, most = self.state
        buffer = HistoryBuffer(max_length=most)
        buffer._log_history, buffer._count_history = log, counts
        return buffer


class _Schedule(_Holder):
    """Stands for MMEngine's ``OneCycleParamScheduler``, of which only functions are named."""

    __slots__ = ()

    def __init__(self, *_: Any) -> None:
        _refuse('call', 'OneCycleParamScheduler')

    __setstate__ = __init__


class _Function(_Holder):
    """Stands for a function of one of the two classes; is never called while reading."""

    __slots__ = ('owner', 'name')

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __setstate__(self, state: Any) -> None:
        _refuse('state of a function', state)

    def object(self) -> Any:
        """Returns the function; its name where MMEngine is not installed."""
        try:
            from mmengine.logging import HistoryBuffer
            from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
        except ImportError:
            return self.name
        return getattr(
            HistoryBuffer if self.owner is _History else OneCycleParamScheduler, self.name
        )


def _lookup(owner: Any, name: Any) -> _Function:
    """Stands for ``getattr``: knows the functions that MMEngine's checkpoints name, no more."""
    for known, names in ((_History, _STATISTICS), (_Schedule, _ANNEALING)):
        if owner is known and type(name) is str and name in names:
            return _Function(owner, name)
    return _refuse('getattr', (owner, name))


def _named(stand_in: Any, name: str) -> Any:
    """Gives a stand-in the full name by which torch finds it."""
    if not isinstance(stand_in, type):
        function = stand_in
        stand_in = lambda *args: function(*args)  # noqa: E731
    stand_in.__module__, _, stand_in.__qualname__ = name.rpartition('.')
    stand_in.__name__ = stand_in.__qualname__
    return stand_in


_STAND_INS = [
    _named(_lookup, 'builtins.getattr'),
    _named(_bytes, 'builtins.bytes'),
    _named(_Dtype, 'numpy.dtype'),
    _named(_Array, 'numpy.ndarray'),
    _named(_History, f'{_HISTORY}.HistoryBuffer'),
    _named(_Schedule, f'{_SCHEDULER}.OneCycleParamScheduler'),
    # NumPy 2 has another name for the same module.
    *(
        _named(function, f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name, function in (('scalar', _scalar), ('_reconstruct', _reconstruct))
    ),
]
