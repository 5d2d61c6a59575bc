"""What is left of a detection in a perturbed frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.boxes import iou_3d
from ..core.structures import Detections


def step_score(candidates: Detections, box: Tensor) -> float:
    """Returns the highest 3D IoU of the candidates with an object's box, 0 without candidates.

    Args:
        candidates: Boxes of the object's class that were decoded in its region.
        box: (7,) the object's annotated box.
    """
    return float(step_scores([candidates], box)[0])


def step_scores(steps: Sequence[Detections], box: Tensor) -> Tensor:
    """Returns the (S,) scores of an object in S frames, see ``step_score``.

    On a GPU the host waits as often for many frames as for one.

    Args:
        steps: Of each frame, boxes of the object's class that were decoded in its region.
        box: (7,) the object's annotated box.
    """
    boxes = torch.cat([candidates.boxes for candidates in steps])
    # A diverged size (exp of a logit) is no detection of anything.
    finite = boxes.isfinite().all(dim=1, keepdim=True)
    overlap = iou_3d(boxes.masked_fill(~finite, 0), box[None].to(boxes))[:, 0]
    parts = overlap.split([len(candidates) for candidates in steps])
    return torch.stack([part.amax() if len(part) else part.new_zeros(()) for part in parts])
