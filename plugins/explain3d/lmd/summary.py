"""Decompositions as rows of a table: what are the predictions, and the layers, made of?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .frame import FrameDecomposition
from .shares import mean_parts, mean_shares, shares


def summarize_frames(frames: Sequence[FrameDecomposition]) -> list[dict[str, Any]]:
    """Returns rows that sum up frames: two for each output, one for each captured layer.

    Columns: ``of``; what the row tells, in ``figure``; a column for each component; ``total``;
    ``frames``. ``logit`` is the mean over the cells that the model predicts (positive output),
    averaged over frames that have any, and each component's part of it, which add up to the total.
    ``share`` is sum |h_m| over that of all components, averaged over frames.

    Args:
        frames: Of one run: the same components and outputs. May be empty.
    """
    rows = []
    for name in frames[0].outputs if frames else ():
        means = [
            mean_parts(part, (part.value > 0).any(0))
            for part in (frame.outputs[name] for frame in frames)
            if part.parts.dim() == 4
        ]
        means = [mean for mean in means if not mean.isnan().any()]
        if means:
            rows.append(_row(frames[0], name, 'logit', torch.stack(means).mean(0), len(means)))
        each = [{name: _shares_of(frame, name)} for frame in frames]
        rows.append(_row(frames[0], name, 'share', mean_shares(each)[name], len(frames)))
    for name, mean in mean_shares([frame.shares for frame in frames]).items():
        if name not in frames[0].outputs:
            count = sum(name in frame.shares for frame in frames)
            rows.append(_row(frames[0], name, 'share', mean, count))
    return rows


def _shares_of(frame: FrameDecomposition, name: str) -> Tensor:
    """Returns the shares of an output: a frame that went through the host has them."""
    known = frame.shares.get(name)
    return shares(frame.outputs[name]) if known is None else known


def _row(frame: FrameDecomposition, of: str, figure: str, values: Any, count: int) -> dict:
    parts = dict(zip(frame.names, values.tolist(), strict=True))
    return {'of': of, 'figure': figure, **parts, 'total': float(values.sum()), 'frames': count}
