"""A pass of a detector up to the point at which the head has its raw outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ...core.errors import NotApplicableError
from ...core.session import overridden
from .heads.base import HostCandidates


class _HeadReached(Exception):  # noqa: N818 - ends the pass, is no error
    """The head has the raw outputs; what it would do with them (NMS) is not needed."""


def raw_outputs(
    model: nn.Module,
    head: nn.Module,
    family: type[HostCandidates],
    predict: Callable[[dict], Any],
    inputs: dict[str, Any],
) -> tuple[tuple, dict[str, Any], dict[str, Any]]:
    """Returns what the method that ``family`` intercepts is called with, and the batch there.

    Args:
        model: The detector, without wrappers.
        head: Its head.
        family: Of the head.
        predict: The detector's own ``forward``.
        inputs: OpenPCDet's ``batch_dict``; the pass writes to it.

    Raises:
        NotApplicableError: If the method is not called.
    """
    calls: list[tuple[tuple, dict]] = []
    batches = [inputs]

    def note(_module: nn.Module, args: tuple) -> None:
        batches.append(args[0])

    def stop(*args: Any, **kwargs: Any) -> None:
        if family.of_detector:
            batches.append(args[0])
            args = args[1:]
        calls.append((args, kwargs))
        raise _HeadReached

    owner = model if family.of_detector else head
    handle = head.register_forward_pre_hook(note)
    try:
        with overridden(owner, family.intercepts, stop):
            predict(inputs)
    except _HeadReached:
        return *calls[0], batches[-1]
    finally:
        handle.remove()
    raise NotApplicableError(
        f'{type(owner).__name__}.{family.intercepts} was not called: expected a head that works as '
        'its parent class in OpenPCDet does. Name another family (HEAD in the section EXPLAINER).'
    )
