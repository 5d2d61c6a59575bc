"""Several processes on a machine without CUDA, which MMEngine's launcher cannot start."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def use_gloo_without_cuda(config: Any) -> None:
    """Prepares a distributed run on CPUs; with CUDA, or with one process, it does nothing.

    MMEngine sets a CUDA device before it joins the processes, and gives each model one: the
    processes are joined here instead, and the model wrapper is told to use none.

    Args:
        config: The runner's configuration, with ``launcher`` set; changed in place.
    """
    if config.get('launcher', 'none') != 'pytorch' or torch.cuda.is_available():
        return
    if not distributed.is_initialized():
        distributed.init_process_group('gloo')
    config.setdefault('env_cfg', {}).setdefault('dist_cfg', {}).update(backend='gloo')
    wrapper = dict(config.get('model_wrapper_cfg') or {'broadcast_buffers': False})
    config.model_wrapper_cfg = {**wrapper, 'device_ids': None}


def leave_processes() -> None:
    """Ends a distributed run in order; does nothing in a run of one process.

    Left to the interpreter's exit, gloo's threads can still be running when their owner goes, which
    ends the process with "terminate called without an active exception" after all work is done.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
