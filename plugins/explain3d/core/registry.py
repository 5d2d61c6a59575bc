"""A small name table for methods, metrics and targets that works without any host toolbox."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .errors import UnknownNameError

T = TypeVar('T')


class NameRegistry:
    """Maps a name to a class or function; an unknown name lists the candidates.

    Args:
        kind: What is registered, in the singular, for messages ("explainer").

    Examples:
        >>> SHAPES = NameRegistry('shape')
        >>> @SHAPES.register('Square')
        ... class Square:
        ...     def __init__(self, side=1):
        ...         self.side = side
        >>> SHAPES.build(dict(type='Square', side=2)).side
        2
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str | None = None) -> Callable[[T], T]:
        """Returns a decorator that registers its argument, under its own name by default."""

        def decorate(entry: T) -> T:
            key = name or entry.__name__  # type: ignore[attr-defined]
            if key in self._entries and self._entries[key] is not entry:
                raise ValueError(f'{self.kind} {key!r} is registered already: choose another name.')
            self._entries[key] = entry
            return entry

        return decorate

    def get(self, name: str) -> Any:
        """Returns the entry called ``name``.

        Raises:
            UnknownNameError: If there is none; the message lists all names and the closest one.
        """
        if name in self._entries:
            return self._entries[name]
        close = difflib.get_close_matches(str(name), self._entries, n=1, cutoff=0.5)
        hint = f' Did you mean {close[0]!r}?' if close else ''
        raise UnknownNameError(
            f'Unknown {self.kind} {name!r}: expected one of {sorted(self._entries)}.{hint}'
        )

    def build(self, cfg: dict | Any, **defaults: Any) -> Any:
        """Builds an entry from ``dict(type=name, **arguments)``; returns an instance as it is.

        Raises:
            UnknownNameError: If there is no such entry, or it does not take such an argument.
        """
        if not isinstance(cfg, dict):
            return self.build({'type': cfg}, **defaults) if isinstance(cfg, str) else cfg
        arguments = {**defaults, **cfg}
        if 'type' not in arguments:
            raise UnknownNameError(
                f'The configuration of the {self.kind} has no "type": expected one of '
                f'{sorted(self._entries)}, received the keys {sorted(cfg)}.'
            )
        name = arguments.pop('type')
        # Configurations may carry our scope ("explain3d.FFAM") as host registries want it.
        entry = self.get(name.removeprefix('explain3d.'))
        try:
            inspect.signature(entry).bind(**arguments)
        except TypeError as error:
            raise UnknownNameError(
                f'{self.kind.capitalize()} {name!r}: {error}; expected some of '
                f'{list(inspect.signature(entry).parameters)}.'
            ) from None
        return entry(**arguments)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
