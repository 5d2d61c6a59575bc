"""Functions that torch does not dispatch, watched while a decomposition is active.

``torch.tensor(x)`` and its like take a decomposed tensor and give a plain one, and torch.func's
transforms hide it in a wrapper, without asking ``__torch_function__``. Their names in torch's
modules are exchanged while a decomposition is open: with decomposed tensors, or numbers read from
them, they go the way of all other functions; everything else passes through.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..core.errors import NotApplicableError
from .exports import ReadNumber, came_back, read_numbers
from .nested import tensors
from .twin import Carried

#: Module and name of the functions that make tensors.
_MAKERS = (
    ('torch', 'tensor'),
    ('torch', 'as_tensor'),
    ('torch', 'asarray'),
    ('torch', 'scalar_tensor'),
    ('torch', 'full'),
    ('torch', 'linspace'),
    ('torch', 'arange'),
    ('torch', 'to_dlpack'),
    ('torch.utils.dlpack', 'to_dlpack'),
)
#: Of those by which torch.func wraps the tensors that a transform is given.
_WRAPPERS = (
    ('torch._functorch.vmap', '_add_batch_dim'),
    ('torch._functorch.eager_transforms', '_wrap_for_grad'),
)


class _Watch:
    """Exchanges the functions while at least one decomposition is open."""

    def __init__(self) -> None:
        self._open = 0
        self._lock = threading.Lock()
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                for names, watched in ((_MAKERS, _made), (_WRAPPERS, _wrapped)):
                    for module, name in names:
                        self._exchange(sys.modules.get(module), name, watched)
                self._exchange(Tensor, 'new_tensor', _made)
                for kind in (torch._C.ScriptFunction, torch._C.ScriptMethod):
                    self._exchange(kind, '__call__', _scripted)
                self._undo.enter_context(_uncompiled())

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._undo.close()

    def _exchange(self, owner: Any, name: str, watched: Callable) -> None:
        function = getattr(owner, name, None)
        if function is None:
            return
        own = name in vars(owner)
        setattr(owner, name, watched(function))
        self._undo.callback(*((setattr, owner, name, function) if own else (delattr, owner, name)))


#: A context: ``with WATCH``.
WATCH = _Watch()


def _made(function: Callable) -> Callable:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if _concerns(args, kwargs):
            carried = [t for _, t in tensors((args, kwargs)) if isinstance(t, Carried)]
            if carried:
                from .dispatch import dispatch

                return dispatch(function, args, kwargs)
            _refuse_numbers(function, args, kwargs)
        return function(*args, **kwargs)

    return watched


def _concerns(args: tuple, kwargs: dict) -> bool:
    """Whether an argument is of a kind to be looked at: quickly, for what makes many tensors."""
    return any(
        isinstance(value, (Carried, ReadNumber, list, tuple)) for value in (*args, *kwargs.values())
    )


def _refuse_numbers(function: Callable, args: tuple, kwargs: dict) -> None:
    for number in read_numbers(args, kwargs):
        run = number.run()
        if run is not None and run.is_active:
            came_back(run, f'torch.{function.__name__}', number, run.rules_here().exports)


def _scripted(function: Callable) -> Callable:
    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        carried = [t for _, t in tensors((args, kwargs)) if isinstance(t, Carried)]
        if carried and carried[0]._twin.run.is_active:
            path = carried[0]._twin.run.module
            raise NotApplicableError(
                f'Module {path!r} gives decomposed tensors to TorchScript (torch.jit.trace or '
                'script): expected Python, whose operations can be seen. Use the module or '
                'function that it was made of, end the decomposition before it (stop, outputs), '
                'register a rule for the module with @explain3d.lmd.module_rule, or declare it '
                f"constant with per_module={{{path!r}: dict(module='constant')}}."
            )
        return function(*args, **kwargs)

    return watched


def _uncompiled() -> AbstractContextManager:
    """Context in which what torch.compile made runs as the Python that it was made of."""
    # Without torch._dynamo nothing is compiled, and to import it takes seconds.
    if 'torch._dynamo' in sys.modules and hasattr(torch.compiler, 'set_stance'):
        return torch.compiler.set_stance('force_eager')
    return nullcontext()


def _wrapped(function: Callable) -> Callable:
    @functools.wraps(function)
    def watched(tensor: Any, *args: Any) -> Any:
        run = tensor._twin.run if isinstance(tensor, Carried) else None
        if run is not None and run.is_active:
            raise NotApplicableError(
                f'A transform of torch.func (vmap, grad, jvp, ...) in module {run.module!r} hides '
                'a decomposed tensor: expected plain torch operations. Write it with batched '
                'operations, end the decomposition before it (stop, outputs), or register a rule '
                'for the module with @explain3d.lmd.module_rule.'
            )
        return function(tensor, *args)

    return watched
