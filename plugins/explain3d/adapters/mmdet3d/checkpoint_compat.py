"""MMEngine's loaders of checkpoints, taught to read what MMEngine's training writes."""

from __future__ import annotations

from typing import Any

from mmengine.runner import CheckpointLoader, Runner

from ..checkpoint_reading import guarded


def guard_checkpoint_loaders() -> None:
    """Lets MMEngine load its own checkpoints with torch 2.6 and later.

    From torch 2.6 on ``torch.load`` refuses a checkpoint that MMEngine 0.10 wrote in training,
    which can neither be resumed from nor tested then. After this call all that loads through
    MMEngine's ``CheckpointLoader`` (a runner's ``load_from`` and ``resume``, ``init_model``,
    ``load_checkpoint``) reads them, and runs no code of theirs; see ``checkpoint_reading``. A
    ``torch.load`` elsewhere is as it was. Calling it again changes nothing.
    """
    for prefix, load in list(CheckpointLoader._schemes.items()):
        if not getattr(load, 'reads_engine_checkpoints', False):
            CheckpointLoader.register_scheme(prefix, guarded(load), force=True)


def ignore_stored_configuration(runner: Runner) -> None:
    """Keeps a runner from running the configuration that a checkpoint holds as text.

    When MMEngine resumes it executes that text as Python, only to compare ``gpu_ids``, a key that
    its configurations do not have any more.
    """
    load = runner.load_checkpoint

    def load_checkpoint(*args: Any, **kwargs: Any) -> dict:
        checkpoint = load(*args, **kwargs)
        checkpoint.get('meta', {}).pop('config', None)
        return checkpoint

    runner.load_checkpoint = load_checkpoint
