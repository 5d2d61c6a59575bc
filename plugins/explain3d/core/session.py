"""Working on a model that belongs to somebody else: everything is put back as it was found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .checkpointing import without_checkpointing


@contextmanager
def frozen_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluates ``model`` with gradients to its activations, but none to its parameters.

    Inside, every module is in eval mode, no parameter requires a gradient, gradients are enabled
    even under ``torch.no_grad``, and gradient checkpointing is off, which would refuse gradients of
    activations. Afterwards, also after an exception, the model is as it was: training flags,
    ``requires_grad``, buffers (identity and content) and the state of the random generators of
    Python, numpy, the CPU and the model's devices.

    Args:
        model: Any module. Its parameters' values are not written to, hence not saved.
    """
    modes = [(module, module.training) for module in model.modules()]
    frozen = [p for p in model.parameters() if p.requires_grad]
    buffers = _save_buffers(model)
    generators = _save_generators(model)
    try:
        # Flags are set directly: ``eval()`` and ``train()`` are overridden by some backbones.
        for module, _ in modes:
            module.training = False
        for parameter in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad(), without_checkpointing():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(True)
        _restore_buffers(buffers)
        _restore_generators(generators)


def _save_buffers(model: nn.Module) -> list[tuple]:
    return [
        (module, name, buffer, buffer._version, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]


def _restore_buffers(buffers: list[tuple]) -> None:
    for module, name, buffer, version, content in buffers:
        module._buffers[name] = buffer
        if buffer._version != version:  # Written to; comparing values would wait for the device.
            with torch.no_grad():
                buffer.copy_(content)


def _save_generators(model: nn.Module) -> dict[str, Any]:
    devices = {p.device.index or 0 for p in model.parameters() if p.is_cuda}
    return {
        'python': random.getstate(),
        'numpy': np.random.get_state(),  # noqa: NPY002 - the host's global generator
        'torch': torch.get_rng_state(),
        'cuda': {index: torch.cuda.get_rng_state(index) for index in devices},
    }


def _restore_generators(state: dict[str, Any]) -> None:
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    for index, value in state['cuda'].items():
        torch.cuda.set_rng_state(value, index)


@contextmanager
def overridden(owner: object, name: str, value: Any) -> Iterator[None]:
    """Sets an attribute of one instance, and puts back what its ``__dict__`` had before.

    A method of the class is shadowed for this instance only, and visible again afterwards. Several
    of these contexts on one attribute need not be left in reverse order: once all are left, the
    attribute is as it was before the first.
    """
    mine = _Override(name in vars(owner), vars(owner).get(name))
    every = _OVERRIDES.setdefault((id(owner), name), [])
    every.append(mine)
    vars(owner)[name] = value
    try:
        yield
    finally:
        place = every.index(mine)
        every.remove(mine)
        if place < len(every):  # A later one is still there: it puts back what this one found.
            every[place].had, every[place].before = mine.had, mine.before
        elif mine.had:
            vars(owner)[name] = mine.before
        else:
            vars(owner).pop(name, None)
        if not every:
            del _OVERRIDES[id(owner), name]


@dataclass(eq=False)
class _Override:
    """What an attribute was before it was overridden: whether it was there, and its value."""

    had: bool
    before: Any


#: The overrides in force of each attribute, by the owner's id and its name, oldest first.
_OVERRIDES: dict[tuple[int, str], list[_Override]] = {}
