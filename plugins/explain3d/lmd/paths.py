"""Paths of modules: which module is meant, and what a name that none has was probably to be."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import nn

from ..core.errors import NotApplicableError, UnknownNameError


def check_paths(model: nn.Module, mentioned: Sequence[tuple[str, str]]) -> dict[str, nn.Module]:
    """Returns all modules by path, each path of a module that has several.

    Args:
        model: The network.
        mentioned: Paths that a user named, each with what for ('seed', 'output', ...).

    Raises:
        UnknownNameError: If a module does not exist; the message lists close ones.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    for path, what in mentioned:
        if path not in known:
            close = _close(path, list(known))
            article = 'an' if what[:1] in 'aeiou' else 'a'
            raise UnknownNameError(
                f'Unknown module {path!r} for {article} {what}: expected a path as in '
                f'model.named_modules(){f", such as {close}" if close else ""}.'
            )
    return known


def paths_of(model: nn.Module, mentioned: Sequence[tuple[str, str]]) -> dict[int, str]:
    """Maps each module's id to its path; of several, the one that the user mentioned.

    Args:
        model: The network.
        mentioned: As in ``check_paths``.

    Raises:
        UnknownNameError: As ``check_paths``.
    """
    by_path = check_paths(model, mentioned)
    paths = {id(module): path for path, module in reversed(by_path.items())}
    return {**paths, **{id(by_path[path]): path for path, _ in mentioned}}


def visible_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that run as Python, and TorchScript's outermost ones."""
    hidden = {
        id(child)
        for module in model.modules()
        if isinstance(module, torch.jit.ScriptModule)
        for child in module.modules()
        if child is not module
    }
    return [module for module in model.modules() if id(module) not in hidden]


def check_visible(model: nn.Module, mentioned: Sequence[tuple[str, str]]) -> None:
    """Refuses a model in TorchScript, and seeds and outputs inside of such modules.

    Raises:
        NotApplicableError: If there is one.
    """
    visible = {id(module) for module in visible_modules(model)}
    found = [(path, what) for path, what in mentioned if id(_at(model, path)) not in visible]
    if isinstance(model, torch.jit.ScriptModule):
        found = [('', 'the model')]
    for path, what in found:
        raise NotApplicableError(
            f'Module {path!r} ({what}) is TorchScript (torch.jit.trace or script): expected '
            'modules that run as Python, whose operations can be seen. Use the module that it was '
            'made of.'
        )


def _at(model: nn.Module, path: str) -> nn.Module:
    return dict(model.named_modules(remove_duplicate=False))[path]


def _close(path: str, known: list[str]) -> list[str]:
    """Names like it, then paths that end in the same name, then those that contain that name."""
    last = path.rsplit('.', 1)[-1]
    found = difflib.get_close_matches(path, known, n=4, cutoff=0.6)
    found += [k for k in known if last and k.rsplit('.', 1)[-1] == last and k not in found][:3]
    return found or [k for k in known if last and last in k][:5]
