"""OccAM as its authors compute it: batches of whole inferences, NMS included.

Written from the paper (Schinagl et al., CVPR 2022) and from what its released code does, for a
detector of MMDetection3D: each sub-cloud goes through the detector as a frame does, in batches of
eight, and what NMS leaves of it is compared with the detections of the whole frame. The sub-clouds
are drawn as ours are, so that both sides get the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from torch import Tensor, nn

from explain3d.adapters.mmdet3d.frames import detections_of
from explain3d.core.boxes import iou_3d
from explain3d.core.structures import Detections
from explain3d.methods.occam_sampling import VoxelSampling

#: Clouds of a batch in the released demonstration.
BATCH_SIZE = 8


class AuthorsOccAM:
    """The detector, asked about whole frames.

    Args:
        model: The detector.
        batch_size: Clouds that go through it at a time.
    """

    def __init__(self, model: nn.Module, batch_size: int = BATCH_SIZE) -> None:
        self.model, self.batch_size = model, batch_size

    @torch.no_grad()
    def detect(self, clouds: Sequence[Tensor]) -> list[Detections]:
        """Returns what the detector reports for a batch of clouds."""
        samples = [Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes)) for _ in clouds]
        batch = dict(inputs=dict(points=list(clouds)), data_samples=samples)
        return [detections_of(found, (), '') for found in self.model.test_step(batch)]

    def maps(
        self, points: Tensor, detections: Detections, sampling: VoxelSampling, samples: int
    ) -> Tensor:
        """Returns (K, N) means of the similarity over the sub-clouds that a point is in."""
        total = points.new_zeros(len(detections), len(points), dtype=torch.float64)
        count = total.new_zeros(len(points))
        for start in range(0, samples, self.batch_size):
            masks = sampling.masks(points, range(start, min(start + self.batch_size, samples)))
            found = most_similar(detections, self.detect([points[mask] for mask in masks]))
            for mask, row in zip(masks, found, strict=True):
                count += mask
                total += row[:, None] * mask
        return total / count.clamp(min=1)


def most_similar(detections: Detections, found: Sequence[Detections]) -> Tensor:
    """Returns the (B, K) similarity of each detection with the most similar box of each cloud.

    The boxes of a batch are compared in one go, and then shared out among its clouds.
    """
    every = Detections(
        *(torch.cat([getattr(f, name) for f in found]) for name in ('boxes', 'scores', 'labels'))
    )
    matrix = similarity_matrix(detections, every)
    best = matrix.new_zeros(len(found), len(detections))
    for row, part in zip(best, matrix.split([len(f) for f in found], dim=1), strict=True):
        if part.shape[1]:
            row.copy_(part.amax(dim=1))
    return best


def similarity_matrix(detections: Detections, found: Detections) -> Tensor:
    """Returns (K, L) overlap x class x score x translation x rotation x scale."""
    a, b = detections.boxes.double(), found.boxes.double()
    overlap = iou_3d(a, b) > 0
    same = detections.labels[:, None] == found.labels
    translation = (1 - (a[:, None, :3] - b[:, :3]).norm(dim=2)).clamp(min=0)
    turn = (a[:, 6:] - b[:, 6]).abs() % (2 * torch.pi)
    rotation = (1 - torch.minimum(turn, 2 * torch.pi - turn)).clamp(min=0)
    scale = iou_3d(_at_origin(a), _at_origin(b))
    return overlap * same * found.scores.double() * translation * rotation * scale


def _at_origin(boxes: Tensor) -> Tensor:
    moved = torch.zeros_like(boxes)
    moved[:, 3:6] = boxes[:, 3:6]
    return moved
