"""Checks that the paper did not run: randomised weights, and jittered points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.boxes import iou_3d
from ..core.errors import InputError, NotApplicableError
from ..core.randomise import shuffled_weights
from ..core.structures import Detections, Maps, Trace
from ..core.targets import Target
from ..methods.base import Explainer
from .map_statistics import rank_correlation

Similarities = dict[str, Tensor]


def randomisation(
    explainer: Explainer,
    trace: Trace,
    targets: Sequence[Target],
    maps: Maps,
    parts: Sequence[tuple[str, nn.Module]],
    seed: int = 0,
    regions: Tensor | None = None,
) -> dict[str, Similarities]:
    """Compares maps with those of a network whose weights are shuffled, from the output down.

    Cascading, as Adebayo et al. (NeurIPS 2018): the first part's weights are shuffled, then the
    first two's, and so on. The same anchors or cells are explained throughout.

    Args:
        explainer: The method.
        trace: That made ``maps``.
        targets: Likewise.
        maps: (K, N) for each target.
        parts: Names and modules, the one next to the output first.
        seed: Of the shuffling.
        regions: (K, N) bool, the points over which each detection's maps are compared; None: all.
            Over a whole frame, where the receptive field ends and how the gradient fades with
            the distance decide, which random weights have in common with learnt ones.

    Returns:
        For each part's name and each target, the (K,) rank correlations; 1 where both maps are
        constant, 0 where one is (it has changed, and says nothing), NaN where there is no point.

    Raises:
        NotApplicableError: If the trace cannot be run again.
    """
    if trace.replay is None:
        raise NotApplicableError(
            'Randomisation runs the frame again with other weights: expected a trace with '
            '"replay", received one without.'
        )
    found = {}
    with ExitStack() as shuffled:
        for number, (name, module) in enumerate(parts):
            shuffled.enter_context(shuffled_weights(module, seed + number))
            with torch.enable_grad():
                other = explainer.explain(_again(trace), targets)
            found[name] = {
                t.name: similarity(maps.saliency[t.name], other.saliency[t.name], regions)
                for t in targets
            }
    return found


def _again(trace: Trace) -> Trace:
    """Returns the trace with the weights that the network has now, at all of its layers."""
    leaf, attributes = trace.replay(None)
    return replace(
        trace,
        leaf=leaf,
        attributes=attributes,
        features=replace(trace.features, values=trace.rows(leaf.detach())),
        further=tuple(_again(other) for other in trace.further),
    )


def similarity(a: Tensor, b: Tensor, regions: Tensor | None = None) -> Tensor:
    """Rank correlation of (K, N) maps where constant maps have a place, see ``randomisation``."""
    if regions is not None:
        rows = [
            similarity(x[None, r], y[None, r]) if r.any() else x.new_full((1,), torch.nan).double()
            for x, y, r in zip(a, b, regions.to(a.device), strict=True)
        ]
        return torch.cat(rows) if rows else a.new_zeros(0).double()
    if a.shape == b.shape and a.dim() == 2 and a.shape[1] == 0:
        return a.new_full((len(a),), torch.nan).double()
    flat_a, flat_b = (m.amax(dim=1) == m.amin(dim=1) for m in (a, b))
    return torch.where(flat_a & flat_b, 1.0, rank_correlation(a, b)).nan_to_num(0.0)


def jittered(points: Tensor, deviation: float, seed: int = 0) -> Tensor:
    """Returns points whose x, y, z are moved by normal noise, each point by its own.

    Args:
        points: (N, P) x, y, z, ..., metres.
        deviation: Standard deviation, metres.
        seed: Of the noise.

    Raises:
        InputError: If the deviation is negative or not finite.
    """
    if not 0 <= deviation < math.inf:
        raise InputError(f'Expected a standard deviation >= 0, received {deviation}.')
    noise = torch.randn(len(points), 3, generator=torch.Generator().manual_seed(seed))
    moved = points.clone()
    moved[:, :3] += deviation * noise.to(points)
    return moved


def stability(
    maps: Tensor,
    subjects: Detections,
    others: Tensor,
    found: Detections,
    least_iou: float = 0.5,
    regions: Tensor | None = None,
) -> Tensor:
    """Compares maps with those of a jittered frame.

    Args:
        maps: (K, N) of the frame.
        subjects: Their K detections.
        others: (L, N) of the jittered frame, over the same points.
        found: Its L detections.
        least_iou: 3D IoU that a detection needs to count as the same.
        regions: As in ``randomisation``.

    Returns:
        (K,) rank correlation with the map of the detection of the same class that overlaps most;
        NaN where the detection is gone, for which nothing can be compared.
    """
    out = maps.new_full((len(subjects),), torch.nan, dtype=torch.float64)
    if len(found) == 0 or len(subjects) == 0:
        return out
    overlaps = iou_3d(subjects.boxes, found.boxes.to(subjects.boxes))
    overlaps[subjects.labels[:, None] != found.labels] = 0
    best, index = overlaps.max(dim=1)
    there = best > least_iou
    here = None if regions is None else regions.to(maps.device)[there]
    out[there] = similarity(maps[there], others.to(maps)[index[there]], here)
    return out
