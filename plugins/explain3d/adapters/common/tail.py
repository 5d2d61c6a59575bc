"""The last part of a detector, which gets the cells at which the wanted candidates look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ...core.reach import ReachProbe, grid_of
from .nested import leaves, mapped
from .windows import Window


class Tail:
    """A module that takes maps and after which the head comes (a neck).

    Args:
        module: It; None where there is none.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self.module = module
        self._strides: list[tuple[float, ...]] = []
        self._probe: ReachProbe | None = None

    @contextmanager
    def watching(self, model: nn.Module, probe: ReachProbe) -> Iterator[None]:
        """Watches a pass of ``model`` from the module on, besides ``probe``, which sees all."""
        with ExitStack() as stack:

            def begin(_module: nn.Module, inputs: tuple) -> None:
                grids = [grid_of(probe, value) for value in leaves(inputs)]
                if self._probe is not None or not grids or None in grids:
                    return
                self._strides = [grid.stride[-2:] for grid in grids]
                self._probe = ReachProbe()
                self._probe.book = probe.book
                stack.enter_context(self._probe.watching(model))

            if self.module is not None:
                stack.callback(self.module.register_forward_pre_hook(begin).remove)
            yield

    def reach(self, outputs: Any) -> tuple[float, float] | None:
        """Returns how far the head's outputs look into the module's inputs, in input voxels."""
        if self._probe is None or not self._probe.bounded:
            return None
        found = self._probe.of(outputs)
        self._probe.forget()
        return found

    @contextmanager
    def narrowing(self, window: Window, stride: tuple[float, ...]) -> Iterator[None]:
        """Cuts the module's inputs from ``window.window`` to ``window.tail``.

        Args:
            window: Of the pass.
            stride: Of the cells of its spans.
        """
        if self.module is None or window.tail == window.window:
            yield
            return

        def cut(_module: nn.Module, inputs: tuple) -> Any:
            strides = iter(self._strides)

            def part(value: Tensor) -> Tensor:
                for axis, own in enumerate(next(strides)):
                    ratio = stride[axis] / own
                    begin = window.window[axis][0]
                    low, high = (round((end - begin) * ratio) for end in window.tail[axis])
                    if window.tail[axis][1] == window.window[axis][1]:
                        high = value.shape[2 + axis]
                    value = value.narrow(2 + axis, low, high - low)
                return value

            return mapped(inputs, part)

        handle = self.module.register_forward_pre_hook(cut)
        try:
            yield
        finally:
            handle.remove()
