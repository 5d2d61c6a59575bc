"""Results that are kept: what does not depend on the rules is not computed again for each."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ....core.errors import UnknownNameError
from ....core.session import overridden
from ....lmd.nested import exchanged, tensors
from ....lmd.paths import check_paths
from ....lmd.twin import plain


class Memo:
    """Keeps results of a model's modules and methods while it is attached.

    Args:
        model: In eval mode; left as found.
        by_content: Modules whose arguments are tensors, and whose result depends on nothing else:
            a result is found again by the content of the arguments.
        by_input: Modules and methods whose result depends on nothing but the model's input: it is
            found again as long as ``input`` says that the input is the same. Modules behind the
            start of a decomposition run plain: their results carry no components.
        size: Results kept for each module by content.

    Raises:
        UnknownNameError: If there is no module or method of that path.
    """

    def __init__(
        self, model: nn.Module, by_content: Sequence[str], by_input: Sequence[str], size: int
    ) -> None:
        known = check_paths(model, [(path, 'memo') for path in by_content])
        self._content = [known[path] for path in by_content]
        self._input = [_method(model, path) for path in by_input]
        self._size = size
        self._key: Hashable = None
        self._results: dict[Hashable, dict] = {}
        self._calls: dict[int, int] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Stands in for the modules and methods; forgets all results afterwards."""
        with ExitStack() as stack:
            for module in self._content:
                memory = _remembering(module.forward, self._size)
                stack.enter_context(overridden(module, 'forward', memory))
            for place, (owner, name) in enumerate(self._input):
                memory = self._by_input(place, getattr(owner, name))
                stack.enter_context(overridden(owner, name, memory))
            stack.callback(self._results.clear)
            yield

    @contextmanager
    def input(self, key: Hashable) -> Iterator[None]:
        """Says which input the model gets; None: one that does not come again."""
        self._key, before = key, self._key
        self._calls.clear()
        try:
            yield
        finally:
            self._key = before

    def _by_input(self, place: int, function: Callable) -> Callable:
        def remembering(*args: Any, **kwargs: Any) -> Any:
            # Without components here and always, or a record would differ from its replay.
            args, kwargs = exchanged((args, kwargs), lambda _, tensor: plain(tensor))
            if self._key is None:
                return function(*args, **kwargs)
            call = self._calls[place] = self._calls.get(place, -1) + 1
            results = self._results.setdefault(self._key, {})
            if (place, call) not in results:
                results[place, call] = function(*args, **kwargs)
            return _copy(results[place, call])

        return remembering


def _method(model: nn.Module, path: str) -> tuple[Any, str]:
    """Returns whose attribute, of which name, is called: a module's ``forward``, or a method."""
    parent, _, name = path.rpartition('.')
    try:
        owner = model.get_submodule(parent)
        found = getattr(owner, name)
    except AttributeError:
        raise UnknownNameError(
            f'Unknown module or method {path!r}: expected a path as in model.named_modules(), '
            "or that of a module's method."
        ) from None
    return (found, 'forward') if isinstance(found, nn.Module) else (owner, name)


def _remembering(forward: Callable, size: int) -> Callable:
    results: OrderedDict[str, Any] = OrderedDict()

    def remembering(*args: Any, **kwargs: Any) -> Any:
        key = _digest((args, kwargs))
        if key not in results:
            results[key] = forward(*args, **kwargs)
            while len(results) > size:
                results.popitem(last=False)
        results.move_to_end(key)
        return _copy(results[key])

    return remembering


def _copy(value: Any) -> Any:
    """A copy that the network may work on in place, and add its predictions to."""
    if isinstance(value, (Tensor, BaseDataElement)):
        return value.clone()
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(v) for v in value)
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _digest(arguments: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, tensor in tensors(arguments):
        digest.update(f'{path} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
