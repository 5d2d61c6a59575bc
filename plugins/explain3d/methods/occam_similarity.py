"""How much of a detection is left in what a detector finds elsewhere (OccAM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.boxes import iou_3d
from ..core.structures import Detections

#: Factors that a target chooses among; overlap and class always count.
FACTORS = ('score', 'translation', 'scale', 'rotation')
#: Which factor an attribute of a detection stands for.
FACTOR_OF = {
    **dict.fromkeys(('score', 'logit'), 'score'),
    **dict.fromkeys(('x', 'y', 'z'), 'translation'),
    **dict.fromkeys(('l', 'w', 'h'), 'scale'),
    'yaw': 'rotation',
}


def similarities(
    detections: Detections, found: Sequence[Detections], factors: Sequence[Sequence[str]]
) -> Tensor:
    """Returns the similarity of detections with the most similar box of each perturbed frame.

    overlap: 1 where the boxes overlap, else 0; class: 1 where it is the same; score: of the box
    that was found; translation: max(0, 1 - distance of the centres / 1 m); scale: IoU of the two
    boxes with centre and yaw aligned; rotation: max(0, 1 - angle between the yaws / 1 rad).

    Args:
        detections: K detections.
        found: Boxes found in each of B frames.
        factors: For each of U similarities, which of ``FACTORS`` are multiplied.

    Returns:
        (B, K, U) float64 in [0, 1]; 0 where nothing is found.
    """
    B, K, U = len(found), len(detections), len(factors)
    device = detections.boxes.device
    best = torch.zeros(B * K, U, dtype=torch.float64, device=device)
    boxes = torch.cat([f.boxes for f in found]).to(device).double() if found else best[:, :0]
    if K == 0 or len(boxes) == 0:
        return best.view(B, K, U)
    frame = torch.repeat_interleave(
        torch.arange(B, device=device), torch.tensor([len(f) for f in found], device=device)
    )
    labels = torch.cat([f.labels for f in found]).to(device)
    scores = torch.cat([f.scores for f in found]).to(device).double()
    targets = detections.boxes.double()
    # Beyond a circle around both there is no overlap: most pairs end here.
    reach = (targets[:, None, 3:5].norm(dim=2) + boxes[:, 3:5].norm(dim=1)) / 2
    near = (targets[:, None, :2] - boxes[:, :2]).norm(dim=2) < reach
    finite = boxes.isfinite().all(dim=1)
    k, c = (near & (detections.labels[:, None] == labels) & finite).nonzero(as_tuple=True)
    overlap = iou_3d(targets[k], boxes[c], aligned=True) > 0
    k, c = k[overlap], c[overlap]
    parts = {
        'score': scores[c],
        'translation': (1 - (targets[k, :3] - boxes[c, :3]).norm(dim=1)).clamp(min=0),
        'scale': _aligned_iou(targets[k, 3:6], boxes[c, 3:6]),
        'rotation': (1 - _angle(targets[k, 6] - boxes[c, 6])).clamp(min=0),
    }
    ones = torch.ones_like(scores[c])
    value = [torch.stack([ones, *(parts[n] for n in names)]).prod(dim=0) for names in factors]
    rows = (frame[c] * K + k)[:, None].expand(-1, U)
    best.scatter_reduce_(0, rows, torch.stack(value, dim=1), 'amax')
    return best.view(B, K, U)


def _aligned_iou(a: Tensor, b: Tensor) -> Tensor:
    shared = torch.minimum(a, b).prod(dim=1)
    return shared / (a.prod(dim=1) + b.prod(dim=1) - shared)


def _angle(difference: Tensor) -> Tensor:
    return torch.atan2(difference.sin(), difference.cos()).abs()
