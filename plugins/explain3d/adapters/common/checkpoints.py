"""The error for a checkpoint that is another model's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...core.errors import CheckpointMismatchError


def mismatch(
    source: str,
    model: nn.Module,
    missing: Sequence[str],
    differing: Sequence[str],
    switch: str,
    hint: str = '',
) -> CheckpointMismatchError:
    """Returns the error for a checkpoint that leaves parameters at their random values.

    Args:
        source: Where the weights come from.
        model: The model they were loaded into.
        missing: Names of parameters and buffers that are not there.
        differing: Those that have another shape, with both shapes.
        switch: What switches the test off.
        hint: More to know, a sentence and a space.
    """
    return CheckpointMismatchError(
        f'{source} does not fit {type(model).__name__}: expected all of its parameters; '
        f'{_some("missing", missing)}{_some("of another shape", differing)}these would stay at '
        f'their random values. {hint}Use the checkpoint of this configuration, or the '
        f'configuration of this checkpoint ({switch} switches this test off).'
    )


def _some(what: str, names: Sequence[str]) -> str:
    if not names:
        return ''
    more = ', ...' if len(names) > 5 else ''
    return f'{len(names)} {what} ({", ".join(names[:5])}{more}); '
