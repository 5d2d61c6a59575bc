"""What the methods of a benchmark start from: the host's own pass, and what it leaves for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from .costs import timed
from .first_pass import FirstPass
from .frame_explainer import FrameExplainer
from .frames import Frame


@dataclass(frozen=True)
class Start:
    """The host's own pass over a frame.

    Attributes:
        frame: The frame.
        output: What the detector gave for it.
        seconds: That the pass took.
        notes: What it left for each explainer, by name; None where that is not enough.
    """

    frame: Frame
    output: Any
    seconds: float
    notes: Mapping[str, tuple[FirstPass, ...] | None]

    def of(self, name: str) -> Frame:
        """Returns the frame as an explainer of that name gets it."""
        return replace(self.frame, first=self.notes.get(name))


def start(
    frame: Frame, explainers: Mapping[str, FrameExplainer], infer: Callable[[], Any]
) -> Start:
    """Runs the host's own pass, and takes notes of it for each explainer, as the hooks do.

    Args:
        frame: The frame.
        explainers: By name.
        infer: The pass.
    """
    with ExitStack() as stack:
        recordings = {
            name: stack.enter_context(explainer.recording())
            for name, explainer in explainers.items()
        }
        output, seconds = timed(infer, frame.points.device)
    notes = {name: None if r is None else r.frame(0, 1) for name, r in recordings.items()}
    return Start(frame, output, seconds, notes)
