"""What is left of a detection in a perturbed frame."""

from __future__ import annotations

from torch import Tensor

from ..core.boxes import iou_3d
from ..core.structures import Detections


def step_score(candidates: Detections, box: Tensor) -> float:
    """Returns the highest 3D IoU of the candidates with an object's box, 0 without candidates.

    Args:
        candidates: Boxes of the object's class that were decoded in its region.
        box: (7,) the object's annotated box.
    """
    # A diverged size (exp of a logit) is no detection of anything.
    boxes = candidates.boxes[candidates.boxes.isfinite().all(dim=1)]
    if len(boxes) == 0:
        return 0.0
    return float(iou_3d(boxes, box[None].to(boxes)).amax())
