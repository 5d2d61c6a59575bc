"""explain3d explains what a 3D perception model saw.

The package imports only the standard library until something is used: hosts, and the parts that
draw or train, are loaded by the name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .adapters.entry import explain, sensor_shares
    from .adapters.mmdet3d.lmd.api import decompose
    from .core.results import load
    from .locations import config_path

__all__ = ['__version__', 'config_path', 'decompose', 'explain', 'load', 'sensor_shares']

_LAZY = {
    'config_path': '.locations',
    'decompose': '.adapters.mmdet3d.lmd.api',
    'explain': '.adapters.entry',
    'load': '.core.results',
    'sensor_shares': '.adapters.entry',
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
