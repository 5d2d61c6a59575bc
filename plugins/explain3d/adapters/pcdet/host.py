"""The checkout of OpenPCDet: finding it, and saying what is wrong with it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...core.errors import NotApplicableError

_REMEDY = (
    'Clone https://github.com/open-mmlab/OpenPCDet and run "python setup.py develop" in it; on a '
    'machine without CUDA no build is needed with --device cpu.'
)


class HostError(NotApplicableError):
    """OpenPCDet is missing, too old or not built."""


def find_script(root: str | os.PathLike | None = None) -> Path:
    """Returns OpenPCDet's ``tools/test.py``.

    Args:
        root: The checkout; None: the environment variable ``PCDET_ROOT``, else where the
            installed package comes from.

    Raises:
        HostError: If it is not there; the message says where it was looked for.
    """
    root = root or os.environ.get('PCDET_ROOT') or _installed()
    if root is None:
        raise HostError(
            'OpenPCDet is not installed, and nothing says where it is: expected --pcdet PATH, the '
            f'environment variable PCDET_ROOT or an importable pcdet. {_REMEDY}'
        )
    return checked_script(Path(root) / 'tools' / 'test.py')


def checked_script(path: str | os.PathLike) -> Path:
    """Returns the path of a test script of OpenPCDet.

    Raises:
        HostError: If it is not there, or not OpenPCDet's.
    """
    script = Path(path).resolve()
    if not (script.parent / 'eval_utils' / 'eval_utils.py').is_file() or not script.is_file():
        raise HostError(
            f'{script} is not the test script of an OpenPCDet checkout: expected '
            f'PATH/TO/OpenPCDet/tools/test.py with eval_utils/ beside it. {_REMEDY}'
        )
    return script


def _installed() -> Path | None:
    spec = importlib.util.find_spec('pcdet')
    # A folder of that name in the working directory is a namespace, and has no origin.
    return Path(spec.origin).parents[1] if spec is not None and spec.origin else None


def import_host(script: Path, on_cpu: bool) -> Any:
    """Imports ``pcdet`` from the checkout of a script, and checks that it can be worked with.

    Args:
        script: ``tools/test.py``; its checkout is put on ``sys.path``.
        on_cpu: Whether stand-ins take the place of its compiled operators.

    Returns:
        The class ``Detector3DTemplate``.

    Raises:
        HostError: If it cannot be imported, is too old or lacks its operators.
    """
    root = script.parents[1]
    if (root / 'pcdet' / '__init__.py').is_file():
        sys.path.insert(1, str(root))
    elif _installed() is None:
        raise HostError(f'There is no package pcdet in {root}: expected one. {_REMEDY}')
    if not on_cpu:
        _require_operators(root)
    detectors = importlib.import_module('pcdet.models.detectors')
    template = getattr(detectors, 'Detector3DTemplate', None)
    if not isinstance(getattr(detectors, '__all__', None), dict) or not hasattr(
        template, '_load_state_dict'
    ):
        raise HostError(
            f'{Path(detectors.__file__).parents[1]} is too old: expected OpenPCDet 0.5.2 or later, '
            'whose pcdet.models.detectors has its detectors by name and loads weights of spconv 2. '
            f'{_REMEDY}'
        )
    return template


def require_device(device: str) -> None:
    """Refuses to go on without the device that is asked for.

    Raises:
        HostError: If there is no CUDA, and it is not the CPU that is asked for.
    """
    if device != 'cpu' and not torch.cuda.is_available():
        raise HostError(
            'There is no CUDA device: expected one, or --device cpu, which runs OpenPCDet with '
            'stand-ins for its compiled operators.'
        )


@contextmanager
def replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of a class, and puts it back."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _require_operators(root: Path) -> None:
    for name in ('pcdet.version', 'pcdet.ops.iou3d_nms.iou3d_nms_cuda'):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise HostError(
                f'OpenPCDet is not built: {name} does not import ({error}). Expected its compiled '
                f'operators in {root}. {_REMEDY}'
            ) from error
