"""explain3d explains what a 3D perception model saw.

The package imports only the standard library until something is used: hosts, and the parts that
draw or train, are loaded by the name that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .adapters.mmdet3d.api import explain
    from .adapters.mmdet3d.lmd.api import decompose, sensor_shares
    from .core.results import load
    from .locations import config_path

__all__ = ['__version__', 'config_path', 'decompose', 'explain', 'load', 'sensor_shares']

_LAZY = {
    'config_path': '.locations',
    'decompose': '.adapters.mmdet3d.lmd.api',
    'explain': '.adapters.mmdet3d.api',
    'load': '.core.results',
    'sensor_shares': '.adapters.mmdet3d.lmd.api',
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_LAZY))
