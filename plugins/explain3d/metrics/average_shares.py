"""What one frame contributes to the average maps: saliency in the cells of each detection's box.

The shares of any number of frames and processes are put together as a list; nothing is averaged
before all are there, so that the result does not depend on who made which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..core.boxes import points_in_boxes
from ..core.errors import InputError
from ..core.matching import match, overlap_function
from ..core.normalize import min_max, require_finite
from ..core.results_settings import plain
from ..core.structures import Detections, Explanation
from .average_protocol import AverageProtocol, Grid


@dataclass(frozen=True)
class ClassShare:
    """The k detections of one class in one frame, and the n cells that they have points in.

    Attributes:
        category: The class.
        detections: (k,) int64 index of each detection among the frame's predictions.
        matched: (k,) bool, whether it found an annotated object; None without annotations.
        overlaps: (k,) highest IoU with an annotated object of the class; 0 where there is none.
        scores: (k,) its score.
        boxes: (k, 7) its predicted box.
        inside: (k,) int64 points in its box.
        around: (k,) int64 points in the region around it, outside the box.
        owner: (n,) int64 which of the k detections a cell belongs to.
        cell: (n,) int64 which cell of the class's grid, counted along height first, length last.
        points: (n,) int64 points of the frame in it.
        sums: (T, n) float64 sum of their saliency, for each target.
    """

    category: str
    detections: Tensor
    matched: Tensor | None
    overlaps: Tensor
    scores: Tensor
    boxes: Tensor
    inside: Tensor
    around: Tensor
    owner: Tensor
    cell: Tensor
    points: Tensor
    sums: Tensor


@dataclass(frozen=True)
class FrameShare:
    """What one frame contributes.

    Attributes:
        frame: Its name.
        annotated: Whether it has annotations.
        explained: What made the maps, the same for all frames: the explanation's settings, its
            method and ``target_names``.
        classes: Of each class that was detected.
        objects: Number of annotated objects.
    """

    frame: str
    annotated: bool
    explained: dict[str, Any]
    classes: tuple[ClassShare, ...]
    objects: int = 0


def share_of(explanation: Explanation, protocol: AverageProtocol) -> FrameShare:
    """Returns what a frame contributes to the average maps, on the CPU.

    Args:
        explanation: K detections, N points; any K and N, also 0.
        protocol: How.

    Raises:
        InputError: If a map is not finite, or a box has no size; the message names the frame.
        UnknownNameError: If a class has no threshold or no cells.
    """
    maps = _checked_maps(explanation, protocol)
    detections, truth = explanation.detections, explanation.ground_truth
    _check_boxes(explanation)
    matched, overlaps = None, torch.zeros(len(detections))
    if truth is not None:
        matched = match(detections, truth, protocol.iou_thr, protocol.iou).true_positives
        overlaps = _best_overlaps(detections, truth, protocol.iou)
    kept = explanation.detection_indices
    kept = torch.arange(len(detections)) if kept is None else kept
    inside = points_in_boxes(explanation.points, detections.boxes).sum(1)
    names = detections.names()
    shares = []
    for category in sorted(set(names)):
        rows = torch.tensor([i for i, name in enumerate(names) if name == category])
        rows = rows.to(detections.boxes.device)
        boxes, grid = detections.boxes[rows], protocol.grid_of(category)
        own, cell, points, sums, total = cells_of(
            explanation.points, boxes, [values[rows] for values in maps], grid
        )
        shares.append(
            ClassShare(
                category,
                *(_on_cpu(value, rows) for value in (kept, matched, overlaps)),
                *(_on_cpu(value, rows) for value in (detections.scores, detections.boxes, inside)),
                around=(total - inside[rows]).clamp(min=0).cpu(),
                owner=own.cpu(), cell=cell.cpu(), points=points.cpu(), sums=sums.cpu(),
            )
        )  # fmt: skip
    return FrameShare(
        explanation.frame_id,
        truth is not None,
        explained(explanation),
        tuple(shares),
        0 if truth is None else len(truth),
    )


def cells_of(
    points: Tensor, boxes: Tensor, maps: list[Tensor], grid: Grid
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sorts the points around boxes into the cells of their aligned and scaled boxes (4.1 of FFAM).

    Args:
        points: (N, P) points, x, y, z first, metres.
        boxes: (k, 7) boxes.
        maps: T tensors (k, N) of saliency.
        grid: The cells.

    Returns:
        Owner, cell and points (n,), sums (T, n), as in ``ClassShare``, sorted by owner and cell;
        and (k,) points in the whole region of each box.
    """
    reach = boxes.new_tensor([*grid.reach]).double()
    # A little more than the region, whose border is decided below in the box's own coordinates.
    size = boxes[:, 3:6] * (1.001 * reach).to(boxes.dtype)
    larger = torch.cat([boxes[:, :3], size, boxes[:, 6:]], dim=1)
    owner, index = points_in_boxes(points, larger).nonzero(as_tuple=True)
    place = aligned(points[index, :3], boxes[owner])
    shape = torch.tensor(grid.shape, device=points.device)
    cells, pad = (torch.tensor(v, device=points.device) for v in (grid.cells, grid.pad))
    position = ((place + 1) / 2 * cells).floor().long()
    # A point on a box's far face is in the box.
    position = torch.where(place == 1, cells - 1, position) + pad
    within = ((position >= 0) & (position < shape)).all(1)
    owner, index, position = owner[within], index[within], position[within]
    flat = (position[:, 0] * shape[1] + position[:, 1]) * shape[2] + position[:, 2]
    key, group = (owner * grid.size + flat).unique(return_inverse=True)
    counts = torch.bincount(group, minlength=len(key))
    sums = counts.new_zeros(len(maps), len(key), dtype=torch.float64)
    if len(key):
        # In order: a GPU's index_add adds in an order of chance.
        order, starts = group.argsort(stable=True), counts.cumsum(0) - counts
        for row, values in zip(sums, maps, strict=True):
            each = values[owner, index].double()[:, None]
            row.copy_(embedding_bag(order, each, starts, mode='sum')[:, 0])
    total = torch.bincount(owner, minlength=len(boxes))
    return key // grid.size, key % grid.size, counts, sums, total


def aligned(points: Tensor, boxes: Tensor) -> Tensor:
    """Returns points in the coordinates of boxes that are scaled to [-1, 1]^3.

    Args:
        points: (P, 3) points, metres.
        boxes: (P, 7) the box of each.

    Returns:
        (P, 3) float64: along length (1 is the front), width (1 the left) and height (1 the top).
    """
    points, boxes = points.double(), boxes.double()
    x, y, z = (points - boxes[:, :3]).unbind(1)
    cos, sin = boxes[:, 6].cos(), boxes[:, 6].sin()
    turned = torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=1)
    return turned / (boxes[:, 3:6] / 2)


def explained(explanation: Explanation) -> dict[str, Any]:
    """Returns what has to be the same in all frames that are averaged."""
    # As plain data: what comes from a file has lists where a fresh explanation has tuples.
    return {
        **plain(explanation.settings),
        'method': explanation.method,
        'target_names': list(explanation.targets),
    }


def _checked_maps(explanation: Explanation, protocol: AverageProtocol) -> list[Tensor]:
    """T tensors (K, N); a map that is not finite is an error with the frame's name."""
    maps = []
    for target, values in explanation.maps.saliency.items():
        try:
            require_finite(values, 'map')
        except InputError as error:
            raise InputError(
                f'Frame {explanation.frame_id!r}, {explanation.method}, target {target!r}: {error}'
            ) from error
        maps.append(min_max(values) if protocol.scale == 'frame' else values)
    return maps


def _check_boxes(explanation: Explanation) -> None:
    flat = (explanation.detections.boxes[:, 3:6] <= 0).any(dim=1)
    if bool(flat.any()):
        raise InputError(
            f'Frame {explanation.frame_id!r}: expected boxes with a size, received '
            f'{int(flat.sum())} of {len(flat)} without: they cannot be scaled. Leave these '
            'detections out (select).'
        )


def _best_overlaps(detections: Detections, truth: Detections, iou: str) -> Tensor:
    """(K,) highest overlap with an object of the detection's class."""
    overlaps = overlap_function(iou)(detections.boxes, truth.boxes.to(detections.boxes.device))
    if overlaps.shape[1] == 0:
        return overlaps.new_zeros(len(detections))
    ours, theirs = ([n.lower() for n in d.names()] for d in (detections, truth))
    same = torch.tensor([[a == b for b in theirs] for a in ours], device=overlaps.device)
    return (overlaps * same.view_as(overlaps)).amax(dim=1)


def _on_cpu(value: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if value is None else value[rows.to(value.device)].detach().cpu()
