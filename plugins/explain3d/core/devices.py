"""Which device a process computes on."""

from __future__ import annotations

import torch


def default_device() -> str:
    """Returns ``'cuda'`` where there is a GPU, ``'cpu'`` where there is none."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def device_of_process(device: str, number: int) -> str:
    """Returns the device of one of several processes on a machine.

    Args:
        device: What was asked for: ``'cuda'`` stands for all GPUs, which take turns; one with an
            index, and any other device, is that of all processes.
        number: Number of the process, from 0 on.
    """
    found = torch.device(device)
    if found.type != 'cuda' or found.index is not None:
        return device
    return f'cuda:{number % max(torch.cuda.device_count(), 1)}'


def use_device(device: str | torch.device) -> None:
    """Makes a GPU the process's current one; compiled operators take no other."""
    found = torch.device(device)
    if found.type == 'cuda':
        torch.cuda.set_device(found if found.index is not None else 0)
