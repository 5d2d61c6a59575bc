"""Checks of settings, made when they are set: what was expected, what came, what to write."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import InputError, UnknownNameError


def require_flag(name: str, value: Any) -> bool:
    """Returns a setting that is True or False.

    Args:
        name: Of the setting.
        value: What was set.

    Raises:
        InputError: If it is neither; ``'no'`` and 0 are not taken for False.
    """
    if isinstance(value, bool):
        return value
    raise _wrong(f'{name} to be True or False', value, f'write {name}=True or {name}=False')


def require_whole(
    name: str,
    value: Any,
    least: int | None = 1,
    most: int | None = None,
    optional: bool = False,
) -> int | None:
    """Returns a setting that is a whole number.

    Args:
        name: Of the setting.
        value: What was set.
        least: The smallest value that is allowed; None for no limit.
        most: The largest value that is allowed; None for no limit.
        optional: Whether None is allowed.

    Raises:
        InputError: If it is no whole number (True and 2.0 are none), or out of range.
    """
    if value is None and optional:
        return None
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and (least is None or least <= value) and (most is None or value <= most):
        return int(value)
    expected = f'{_limits(name, least, None, most, None)}, a whole number' + ' or None' * optional
    raise _wrong(expected, value, f'write {max(least or 1, 1)}, for example')


def require_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    optional: bool = False,
) -> float | None:
    """Returns a setting that is a finite number.

    Args:
        name: Of the setting.
        value: What was set.
        least: The smallest value that is allowed.
        above: A limit that the value has to exceed.
        most: The largest value that is allowed.
        below: A limit that the value must not reach.
        optional: Whether None is allowed.

    Raises:
        InputError: If it is no finite number (text, True, NaN and infinity are none), or out of
            range.
    """
    if value is None and optional:
        return None
    fits = (
        _is_finite(value)
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if fits:
        return value if isinstance(value, (int, float)) else float(value)
    limits = _limits(name, least, above, most, below)
    expected = f'{limits}, a finite number' + ' or None' * optional
    remedy = 'write a number within these limits'
    if isinstance(value, str) and _is_number(value):
        remedy = 'write the number without quotes; YAML reads 1e-4 as text and 1.0e-4 as a number'
    raise _wrong(expected, value, remedy)


def require_numbers(name: str, value: Any, count: int | None = None) -> tuple[float, ...]:
    """Returns a setting that is a list of finite numbers.

    Args:
        name: Of the setting.
        value: What was set.
        count: How many there have to be; None: at least one.

    Raises:
        InputError: If it is something else.
    """
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if listed and all(map(_is_finite, value)) and len(value) == (count or max(len(value), 1)):
        return tuple(value)
    example = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0][: count or 1]
    words = {None: 'one or more', 2: 'two', 6: 'six'}
    expected = f'{name} of {words.get(count, count)} numbers, each finite'
    raise _wrong(expected, value, f'write {name}={example}, for example')


def require_choice(name: str, value: Any, choices: Iterable[Any], optional: bool = False) -> Any:
    """Returns a setting that is one of some words.

    Args:
        name: Of the setting.
        value: What was set.
        choices: The words.
        optional: Whether None is allowed.

    Raises:
        UnknownNameError: If it is another; the message has the closest word.
    """
    choices = list(choices)
    # Compared as text: 1 equals True, but is another word.
    if (value is None and optional) or any(type(value) is type(c) and value == c for c in choices):
        return value
    hint = suggestion(value, choices)
    raise UnknownNameError(f'Unknown {name} {value!r}: expected one of {choices}.{hint}')


def require_text(name: str, value: Any, example: str, optional: bool = True) -> Any:
    """Returns a setting that is text or a path, and not empty.

    Args:
        name: Of the setting.
        value: What was set.
        example: A value for the message.
        optional: Whether None is allowed.

    Raises:
        InputError: If it is something else.
    """
    if (value is None and optional) or (isinstance(value, (str, os.PathLike)) and str(value)):
        return value
    expected = f'{name} to be ' + 'None or ' * optional + 'text'
    raise _wrong(expected, value, f'write {name}={example!r}')


def require_names(name: str, value: Any, example: str, optional: bool = True) -> Any:
    """Returns a setting that is a list of names.

    Args:
        name: Of the setting.
        value: What was set.
        example: A name for the message.
        optional: Whether None is allowed.

    Raises:
        InputError: If it is something else; one name by itself is no list.
    """
    if value is None and optional:
        return None
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if listed and all(isinstance(each, str) and each for each in value):
        return value
    example = value if isinstance(value, str) and value else example
    expected = f'{name} to be ' + 'None or ' * optional + 'a list of names'
    raise _wrong(expected, value, f'write [{example!r}]')


def require_dict(name: str, value: Any, example: str) -> dict[str, Any]:
    """Returns a copy of a setting that is a dict with names for keys; of None an empty one.

    Args:
        name: Of the setting.
        value: What was set.
        example: What such a dict looks like, for the message.

    Raises:
        InputError: If it is something else.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: value[key] for key in value}
    raise _wrong(f'{name} to be a dict', value, f'write {name}={example}')


def require_known(name: str, keys: Iterable[Any], known: Iterable[str]) -> None:
    """Refuses keys that mean nothing.

    Args:
        name: What has the keys.
        keys: Those that were set.
        known: Those that there are.

    Raises:
        UnknownNameError: If one is unknown; the message has the closest one.
    """
    known = list(known)
    for key in keys:
        if key not in known:
            hint = suggestion(key, known)
            raise UnknownNameError(
                f'Unknown key {key!r} of {name}: expected some of {known}.{hint}'
            )


def suggestion(word: Any, known: Iterable[Any]) -> str:
    """Returns ``" Did you mean 'word'?"`` with the known word that comes closest, else ``''``."""
    known = [each for each in known if isinstance(each, str)]
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f' Did you mean {close[0]!r}?' if close else ''


def _wrong(expected: str, value: Any, remedy: str) -> InputError:
    return InputError(
        f'Expected {expected}, received {value!r} ({type(value).__name__}): {remedy}.'
    )


def _limits(
    name: str, least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    """Returns ``0 < name <= 1``."""
    left = f'{least} <= ' if least is not None else f'{above} < ' if above is not None else ''
    right = f' <= {most}' if most is not None else f' < {below}' if below is not None else ''
    if left and not right:
        return f'{name} >= {least}' if least is not None else f'{name} > {above}'
    return f'{left}{name}{right}'


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
