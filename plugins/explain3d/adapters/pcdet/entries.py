"""Entries of a configuration that the command line replaces or, in our sections, adds."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import InputError, UnknownNameError

#: Sections that OpenPCDet does not read: what is not in the file counts as its default there.
SECTIONS = ('EXPLAINER', 'BENCHMARK')


def set_entry(config: dict[str, Any], name: str, value: Any) -> None:
    """Replaces an entry of a configuration; in our own sections it may be new.

    The letter case of names counts outside of our sections alone. Which names our sections know is
    checked where they are read.

    Args:
        config: The whole configuration, with its bases in it; it is changed.
        name: The entry, such as 'EXPLAINER.SELECT.TOP_N'.
        value: What it is to be.

    Raises:
        UnknownNameError: If there is no such entry outside of our sections; the message lists
            what there is.
        InputError: If a part of the name is no section.
    """
    *sections, key = name.split('.')
    ours = is_ours(name)
    place = config
    for number, part in enumerate(sections):
        part = _present(place, part, ours)
        if part not in place and not ours:
            _refuse(place, '.'.join(sections[: number + 1]), part)
        if place.get(part) is None and ours:
            place[part] = {}
        if not isinstance(place[part], dict):
            raise InputError(f'{name!r}: expected {part} to be a section, it is {place[part]!r}.')
        place = place[part]
    key = _present(place, key, ours)
    if key not in place and not ours:
        _refuse(place, name, key)
    place[key] = value


def is_ours(name: str) -> bool:
    """Returns whether an entry is in one of our sections.

    Args:
        name: As in ``set_entry``.
    """
    return name.split('.')[0].upper() in SECTIONS


def taken_from(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes our sections' entries out of what follows ``--set``, OpenPCDet's way to replace some.

    OpenPCDet accepts no entry that is not in the file.

    Args:
        argv: A command line; ``--set`` and pairs of names and values may end it.

    Returns:
        The command line without them, and their values by name: Python or YAML.

    Raises:
        InputError: If a name has no value.
    """
    if '--set' not in argv:
        return list(argv), {}
    end = list(argv).index('--set')
    pairs = list(argv[end + 1 :])
    if len(pairs) % 2:
        raise InputError(
            f'Expected names and values by turns behind --set, received {len(pairs)} of them: '
            f'{pairs[-1]!r} has no value.'
        )
    rest, ours = [], {}
    for name, text in zip(pairs[::2], pairs[1::2], strict=True):
        if is_ours(name):
            ours[name] = value_of(text)
        else:
            rest += [name, text]
    return [*argv[:end], *(['--set', *rest] if rest else [])], ours


def value_of(text: str) -> Any:
    """Returns the value that a text stands for: of Python, as OpenPCDet reads it, else of YAML.

    Args:
        text: Of a command line.

    Raises:
        InputError: If it is neither.
    """
    import yaml

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f'Expected a value of Python or YAML, received {text!r}: {error}'
        ) from None


def _present(place: Mapping[str, Any], name: str, any_case: bool) -> str:
    """Returns the name as it is written in a section, if it is there in another letter case."""
    if not any_case or name in place:
        return name
    return next((key for key in place if str(key).lower() == name.lower()), name)


def _refuse(place: Mapping[str, Any], name: str, key: str) -> None:
    close = difflib.get_close_matches(key, map(str, place), n=1)
    hint = f' Did you mean {close[0]}?' if close else ''
    raise UnknownNameError(
        f'No entry {name!r} in the configuration: expected one of {sorted(map(str, place))} in '
        f'the place of {key!r}, or a new one in {" or ".join(SECTIONS)}.{hint}'
    )
