"""A small name table for methods, metrics and targets that works without any host toolbox."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .checks import suggestion
from .errors import InputError, UnknownNameError

T = TypeVar('T')


class NameRegistry:
    """Maps a name to a class or function; an unknown name lists the candidates.

    Args:
        kind: What is registered, in the singular, for messages ("explainer").
        base: Class of which all entries are subclasses, or make instances; None for no such class.

    Examples:
        >>> SHAPES = NameRegistry('shape')
        >>> @SHAPES.register('Square')
        ... class Square:
        ...     def __init__(self, side=1):
        ...         self.side = side
        >>> SHAPES.build(dict(type='Square', side=2)).side
        2
    """

    def __init__(self, kind: str, base: type | None = None) -> None:
        self.kind, self.base = kind, base
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
        raise UnknownNameError(
            f'Unknown {self.kind} {name!r}: expected one of {sorted(self._entries)}.'
            f'{suggestion(name, self._entries)}'
        )

    def build(self, cfg: str | Mapping[str, Any] | Any, **defaults: Any) -> Any:
        """Builds an entry.

        Args:
            cfg: Its name, ``dict(type=name, **arguments)``, or an instance, which is returned as it
                is. In the place of the name there may be the class itself, as in configurations
                that import what they name.
            defaults: Arguments that ``cfg`` does not have to name.

        Raises:
            UnknownNameError: If there is no such entry, or it does not take such an argument.
            InputError: If ``cfg`` is something else.
        """
        if isinstance(cfg, str) or self._is_entry(cfg):
            cfg = {'type': cfg}
        if not isinstance(cfg, Mapping):
            return self._instance(cfg)
        arguments = {**defaults, **cfg}
        if 'type' not in arguments:
            raise UnknownNameError(
                f'The configuration of the {self.kind} has no "type": expected one of '
                f'{sorted(self._entries)}, received the keys {sorted(cfg)}.'
            )
        name = arguments.pop('type')
        entry = name if self._is_entry(name) else self.get(_bare(name))
        self._check_arguments(name, entry, arguments)
        return entry(**arguments)

    def _is_entry(self, value: Any) -> bool:
        """Whether this is a class that may stand where names do."""
        return isinstance(value, type) and (self.base is None or issubclass(value, self.base))

    def _instance(self, value: Any) -> Any:
        if value is None or (self.base is not None and not isinstance(value, self.base)):
            raise InputError(
                f'Expected the {self.kind} as a name, a dict(type=name, ...) or an instance, '
                f'received {value!r} ({type(value).__name__}): choose among {sorted(self)}.'
            )
        return value

    def _check_arguments(self, name: Any, entry: Any, arguments: Mapping[str, Any]) -> None:
        signature = inspect.signature(entry)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            known = list(signature.parameters)
            unknown = [key for key in arguments if key not in known]
            hint = suggestion(unknown[0], known) if unknown else ''
            raise UnknownNameError(
                f'{self.kind.capitalize()} {name!r}: {error}; expected some of {known}.{hint}'
            ) from None

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


def _bare(name: Any) -> Any:
    """Returns a name without our scope, or our package's path: 'explain3d.FFAM' is 'FFAM'."""
    if isinstance(name, str) and name.startswith('explain3d.'):
        return name.rpartition('.')[2]
    return name
