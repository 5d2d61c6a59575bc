"""Gradient checkpointing switched off: a checkpointed block keeps its graph like any other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils import checkpoint

_lock = threading.Lock()
_open = 0
_undo: list[Callable[[], None]] = []


@contextmanager
def without_checkpointing() -> Iterator[None]:
    """Runs checkpointed blocks as plain ones while the context lasts, in the whole process.

    With ``use_reentrant=True`` a checkpointed block refuses gradients of activations, with
    ``use_reentrant=False`` it runs again in the backward pass, on a model that is no longer as it
    was traced. The values of a pass are the same with and without.

    Callers find ``torch.utils.checkpoint.checkpoint`` as an attribute of its module, under a name
    imported from it, or inside a partial function. All of them end in one of the two parts of that
    module that are exchanged here. Contexts may be nested, and opened in several threads.
    """
    global _open
    with _lock:
        if _open == 0:
            _exchange()
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            if _open == 0:
                while _undo:
                    _undo.pop()()


def _exchange() -> None:
    # Set on the class itself, which only inherits it: others may have imported the class.
    checkpoint.CheckpointFunction.apply = staticmethod(_plain_call)
    _undo.append(lambda: delattr(checkpoint.CheckpointFunction, 'apply'))
    generator = checkpoint._checkpoint_without_reentrant_generator
    checkpoint._checkpoint_without_reentrant_generator = _plain_generator
    _undo.append(lambda: setattr(checkpoint, '_checkpoint_without_reentrant_generator', generator))


def _plain_call(function: Callable, _preserve_rng_state: bool, *args: Any) -> Any:
    """Stands in for ``CheckpointFunction.apply``."""
    return function(*args)


def _plain_generator(
    _function: Callable, _preserve_rng_state: bool, context_fn: Callable, *_: Any, **__: Any
) -> Iterator[None]:
    """Stands in for what records and recomputes around a call; its forward context stays."""
    forward, _ = context_fn()
    with forward:
        yield
