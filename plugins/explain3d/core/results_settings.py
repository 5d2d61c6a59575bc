"""Settings as plain data: what is stored, compared and fingerprinted."""

from __future__ import annotations

import enum
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .errors import InputError, ResultFileError


class SettingsMismatchError(ResultFileError):
    """A sound result file that was made with other settings than those asked for."""


def plain(value: Any, where: str = 'settings') -> Any:
    """Returns ``value`` as what JSON can hold, the same in every process and run.

    Tuples and sets become lists, keys become strings, paths, devices and dtypes their text,
    functions and classes their qualified name, arrays a digest of their content.

    Args:
        value: Nested plain data.
        where: Name of the value, for messages.

    Raises:
        InputError: If something has no text that stays the same from run to run.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        # Subclasses (enumerations of int or str, numpy's float64) must not leak through.
        return value.value if isinstance(value, enum.Enum) else _builtin(value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(item, f'{where}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f'{where}[{i}]') for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item, where) for item in value), key=json.dumps)
    if isinstance(value, (os.PathLike, torch.device, torch.dtype)):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _array_digest(value)
    if hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    raise InputError(
        f'{where} is a {type(value).__name__}: expected plain data (numbers, text, lists, '
        'dictionaries, arrays). Leave it out of settings(), or give its own parameters instead.'
    )


def _builtin(value: Any) -> Any:
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _array_digest(array: np.ndarray) -> Any:
    if array.ndim == 0:
        return array.item()
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {'dtype': str(array.dtype), 'shape': list(array.shape), 'sha256': digest}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Returns a SHA-256 of the settings that does not depend on the order of keys."""
    text = json.dumps(plain(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns one line for each key whose value differs, nested keys joined by dots."""
    before, after = _flatten(plain(old)), _flatten(plain(new))
    missing = object()

    def show(value: Any) -> str:
        return 'not set' if value is missing else repr(value)

    pairs = ((k, before.get(k, missing), after.get(k, missing)) for k in {**before, **after})
    # Compared as text: NaN equals NaN, and True is not 1.
    return [f'{k}: {show(a)} -> {show(b)}' for k, a, b in pairs if show(a) != show(b)]


def _flatten(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for key, value in settings.items():
        name = f'{prefix}{key}'
        nested = isinstance(value, Mapping) and value
        flat.update(_flatten(value, f'{name}.') if nested else {name: value})
    return flat


def check_settings(path: Any, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises if a file's settings are not those asked for.

    Raises:
        SettingsMismatchError: The message lists the keys that differ.
    """
    differing = differences(stored, wanted)
    if differing:
        raise SettingsMismatchError(
            f'{path} was made with other settings ({"; ".join(differing)}): expected those of '
            'this run. Write to another folder, delete the old results, or ask for them to be '
            'recomputed (on_mismatch="recompute").'
        )
