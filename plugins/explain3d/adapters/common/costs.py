"""What an explanation costs: seconds, and passes of the detector."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...core.structures import Maps, Trace
from .frame_explainer import FrameExplainer

T = TypeVar('T')


#: Changes with what the figures mean: those of another meaning are measured again.
MEANING = "from the host's own pass on"


class PassCounter:
    """Counts the passes that a method makes, forward and backward, with a trace of its own.

    The host's own pass counts, from which every method starts, and so does a second one where
    notes of the first did not serve. A forward pass from the layer up, and a backward pass down to
    it, count as one each, as a pass of the whole frame does, and so does one over several windows,
    which together are at most as large as the frame.

    Args:
        trace: What a method is to be given, as a tracer made it; left as found.

    Attributes:
        trace: The same, counting; to be given to the method.
    """

    def __init__(self, trace: Trace) -> None:
        self._further = [PassCounter(other) for other in trace.further]
        self._backward = 0
        self._replay, self._black_box, self._source = trace.replay, trace.black_box, trace.gradients
        self._before = trace.black_box.passes if trace.black_box is not None else 0
        self._others = self._source.passes if self._source is not None else 0
        self._hooks = [self._watch(trace.leaf)]
        further = tuple(counter.trace for counter in self._further)
        self.trace = replace(trace, replay=self._counted, further=further)

    def close(self, maps: Maps) -> int:
        """Returns the number of passes that ``maps`` took, and stops to count.

        Passes of an earlier run, which a method went on from, are part of it.
        """
        return 1 + self._made() + int(maps.info.get('resumed', 0))

    def _made(self) -> int:
        """Returns the passes beside the host's own, at all layers."""
        for hook in self._hooks:
            hook.remove()
        stacked = self._source.passes - self._others if self._source is not None else 0
        asked = self._black_box.passes - self._before if self._black_box is not None else 0
        here = self._replay.passes + self._backward + stacked + asked
        return here + sum(counter._made() for counter in self._further)

    def _counted(self, value: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        leaf, attributes = self._replay(value)
        self._hooks.append(self._watch(leaf))
        return leaf, attributes

    def _watch(self, leaf: Tensor) -> Any:
        def seen(_: Tensor) -> None:
            self._backward += 1

        return leaf.register_hook(seen)


def explained(
    explainer: FrameExplainer, trace: Trace, started: float
) -> tuple[Maps, dict[str, float]]:
    """Explains a trace.

    Args:
        explainer: Method and targets.
        trace: K detections.
        started: Seconds that the host's own pass and the trace took.

    Returns:
        The maps, and what they cost for each detection: ``seconds``, those of ``started`` among
        them, and ``passes`` of the detector.
    """
    counter = PassCounter(trace)
    with torch.enable_grad():
        maps, spent = timed(
            lambda: explainer.explainer.explain(counter.trace, explainer.targets),
            trace.points.device,
        )
    count = len(trace.detections)
    # A method that went on in the middle has no time of its own.
    seconds = math.nan if maps.info.get('resumed') else (started + spent) / count
    return maps, {'seconds': seconds, 'passes': counter.close(maps) / count}


def timed(step: Callable[[], T], device: torch.device | str) -> tuple[T, float]:
    """Returns what ``step`` returns, and the seconds that it took.

    On a CPU these are the process's own, over all its threads: others on the machine do not count.
    On a GPU they are those of the clock, until that GPU is done.

    Args:
        step: What to measure.
        device: Where it computes.
    """
    device = torch.device(device)
    if device.type != 'cuda':
        started = time.process_time()
        value = step()
        return value, time.process_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    value = step()
    torch.cuda.synchronize(device)
    return value, time.perf_counter() - started
