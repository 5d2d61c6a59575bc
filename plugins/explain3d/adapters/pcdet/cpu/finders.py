"""Importing stand-ins: finders that Python asks before, and after, its own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

from ....core.override import override
from .packages import REQUIRED, missing_package

# What OpenPCDet's setup.py writes into the checkout; without it the package does not import.
_VERSION_MODULE = 'pcdet.version'


class _Finder:
    """Offers ready modules by their names.

    Args:
        modules: The modules to offer.
    """

    def __init__(self, modules: Iterable[ModuleType]):
        self.modules = {module.__name__: module for module in modules}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the specification of an offered module, None for any other."""
        return ModuleSpec(name, self) if name in self.modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Returns the module that the specification was made for."""
        return self.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: the module is ready."""


class _LastFinder(_Finder):
    """Asked when nobody else has found a module: tells what to install."""

    @override
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As ``_Finder``; raises ``MissingPackageError`` for what OpenPCDet cannot do without."""
        if name in REQUIRED:
            raise missing_package(name)
        return super().find_spec(name, path, target)


@contextmanager
def importable(modules: Iterable[ModuleType]) -> Iterator[None]:
    """Imports ``modules`` in the place of any others of their names while the context is open.

    All modules of OpenPCDet are imported anew inside, and forgotten at the end: ``sys.modules``
    and ``sys.meta_path`` are then as they were.
    """
    first, last = _Finder(modules), _LastFinder([_version()])
    before = {name: sys.modules[name] for name in _affected(first)}
    for name in before:
        del sys.modules[name]
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)
    try:
        yield
    finally:
        sys.meta_path.remove(first)
        sys.meta_path.remove(last)
        for name in _affected(first):
            del sys.modules[name]
        sys.modules.update(before)


def _affected(finder: _Finder) -> list[str]:
    """Names of the loaded modules that belong to OpenPCDet or that the finder stands in for."""
    return [
        name
        for name in sys.modules
        if name == 'pcdet' or name.startswith('pcdet.') or name in finder.modules
    ]


def _version() -> ModuleType:
    module = ModuleType(_VERSION_MODULE, 'Stand-in of explain3d: the checkout was not set up.')
    module.__version__ = '0+not-set-up'
    return module
