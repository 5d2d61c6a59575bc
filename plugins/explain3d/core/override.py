"""The mark of a method that overrides one of a base class: ``typing.override`` of Python 3.12."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Method = TypeVar('Method', bound=Callable)


def override(method: Method) -> Method:
    """Marks a method as an override; a test checks that a base class has it.

    Below ``property``, ``classmethod`` and the like.

    Args:
        method: The function.
    """
    method.__override__ = True
    return method
