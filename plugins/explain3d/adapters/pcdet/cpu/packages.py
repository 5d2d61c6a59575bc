"""Packages that OpenPCDet imports: those it needs, and those that may well be missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from .errors import CpuModeError, MissingPackageError

# Import name: name to install. pcdet.models and pcdet.datasets import them at their top.
REQUIRED = {
    'easydict': 'easydict',
    'yaml': 'pyyaml',
    'numba': 'numba',
    'skimage': 'scikit-image',
    'scipy': 'scipy',
    'tqdm': 'tqdm',
    'pyquaternion': 'pyquaternion',
    'spconv': 'spconv',
}

# Imported at the top of a module, used by few of its functions: the remedy if one is called.
_USED_RARELY = {
    'cv2': 'pip install opencv-python-headless (pictures of the ONCE data set need it)',
    'SharedArray': 'pip install SharedArray, or leave USE_SHARED_MEMORY out of the data config',
    'torchvision': 'install the torchvision that fits your torch (camera images need it)',
    'tensorboardX': 'pip install tensorboardX (--eval_all needs it)',
}

# Data sets that pcdet.datasets imports whether they are used or not: what they import themselves.
_DATASETS = {('pcdet.datasets.argo2.argo2_dataset', 'Argo2Dataset'): ('av2', 'kornia', 'pandas')}


class RefusingModule(ModuleType):
    """A package that does not import: it can be named, but what is in it cannot be called.

    Args:
        name: Name of the package.
        remedy: What to do about it.
    """

    def __init__(self, name: str, remedy: str):
        super().__init__(name, f'Stand-in of explain3d for {name}, which does not import.')
        self._remedy = remedy

    def __getattr__(self, key: str) -> Any:
        if key.startswith('__'):
            raise AttributeError(key)
        return refusing_class(f'{self.__name__}.{key}', self._remedy)


def refusing_class(name: str, remedy: str) -> type:
    """Returns a class that stands in for ``name`` and raises ``CpuModeError`` when it is called."""

    class Meta(type):
        def __getattr__(cls, key: str) -> Any:
            if key.startswith('__'):
                raise AttributeError(key)
            return refusing_class(f'{name}.{key}', remedy)

    class Refusing(metaclass=Meta):
        def __init__(self, *args: Any, **kwargs: Any):
            raise CpuModeError(
                f'Expected {name}, received a call to its stand-in, because it does not import '
                f'here: {remedy}.'
            )

    return Refusing


def refusing_modules() -> Iterator[ModuleType]:
    """Yields a refusing module for each rarely used package or data set that does not import."""
    for name, remedy in _USED_RARELY.items():
        if not imports(name):
            yield RefusingModule(name, remedy)
    for (name, dataset), needed in _DATASETS.items():
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            module = ModuleType(name, f'Stand-in of explain3d for {name}.')
            setattr(module, dataset, refusing_class(dataset, f'pip install {" ".join(missing)}'))
            yield module


def missing_package(name: str) -> MissingPackageError:
    """The error for a required package that is asked for and not found."""
    missing = [pip for module, pip in REQUIRED.items() if module == name or not _found(module)]
    return MissingPackageError(
        f'Expected the Python package {name}, which OpenPCDet imports, received none: '
        f'pip install explain3d[pcdet], or by name: pip install {" ".join(missing)}.',
        name=name,
    )


def imports(name: str) -> bool:
    """Whether a package imports; one that was built for another torch may well not."""
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


def _found(name: str) -> bool:
    # By the finder of files alone: importlib.util.find_spec would ask ours, which asks this.
    return PathFinder.find_spec(name) is not None
