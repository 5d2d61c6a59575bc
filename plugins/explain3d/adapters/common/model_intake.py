"""The model that a user gives: out of its wrappers, and of which toolbox it is."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ...core.errors import InputError, NotApplicableError

MMDET3D, PCDET = 'MMDetection3D', 'OpenPCDet'


def unwrapped(model: Any, detector_has: str = '') -> nn.Module:
    """Returns the model inside ``torch.compile``, DataParallel, DistributedDataParallel or others.

    Args:
        model: The model.
        detector_has: Name of a method by which a detector that has a part called ``module`` is told
            from a wrapper of a class that is not known here. Without it only torch's own wrappers
            and their subclasses, such as MMEngine's, are looked through.

    Raises:
        InputError: If it is no model.
        NotApplicableError: If its parameters are in pieces (FSDP), or its parts are wrapped one by
            one (``MMSeparateDistributedDataParallel``).
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f'Expected a model (torch.nn.Module), received {type(model).__name__}: build it and '
            'load its weights first, with mmdet3d.apis.init_model(config, checkpoint) or with '
            'build_network of OpenPCDet.'
        )
    while True:
        inner = _inner(model, detector_has)
        if inner is None:
            break
        model = inner
    wrapped = [name for name, part in model.named_children() if _is_wrapper(part)]
    if wrapped or _is_in_pieces(model):
        raise NotApplicableError(
            f'The parts {wrapped or "of the model"} are wrapped (in {type(model).__name__}) for '
            'distributed training: expected a detector in one piece. Pass the detector as it was '
            'before it was wrapped, with its weights.'
        )
    return model


def _inner(model: nn.Module, detector_has: str) -> nn.Module | None:
    # What torch.compile returns. It forwards every attribute, which other wrappers do not.
    compiled = vars(model).get('_modules', {}).get('_orig_mod')
    if compiled is not None:
        return compiled
    if _is_in_pieces(model):
        return None
    inner = getattr(model, 'module', None)
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return inner
    known = detector_has and not hasattr(model, detector_has)
    return inner if known and isinstance(inner, nn.Module) else None


def _is_in_pieces(model: nn.Module) -> bool:
    return any('FullyShardedDataParallel' in parent.__name__ for parent in type(model).__mro__)


def _is_wrapper(model: nn.Module) -> bool:
    return isinstance(model, (DataParallel, DistributedDataParallel)) or _is_in_pieces(model)


def toolbox_of(model: nn.Module) -> str | None:
    """Returns the toolbox of a detector, 'MMDetection3D' or 'OpenPCDet'; None for other models.

    Args:
        model: The model, without wrappers.
    """
    packages = {parent.__module__.split('.')[0] for parent in type(model).__mro__}
    if 'pcdet' in packages:
        return PCDET
    return MMDET3D if 'mmengine' in packages else None


def require_toolbox(model: nn.Module, expected: str) -> None:
    """Refuses a detector of the other toolbox.

    Args:
        model: The model, without wrappers.
        expected: The toolbox whose function was called.

    Raises:
        NotApplicableError: If it is of the other one; the message names the function to use.
    """
    found = toolbox_of(model)
    if found is not None and found != expected:
        package = 'pcdet' if found == PCDET else 'mmdet3d'
        raise NotApplicableError(
            f'{type(model).__name__} is a model of {found}: expected one of {expected}. Use the '
            f'functions of the package explain3d, or those of explain3d.adapters.{package}.'
        )
