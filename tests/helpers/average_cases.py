"""Frames whose average maps are known."""

import math

import torch

from explain3d.core.structures import Detections, Explanation, Maps

CLASSES = ('Car', 'Pedestrian')
SIZE = (4.0, 2.0, 1.5)


def world(local, box):
    """Points (n, 3) in units of a box's half sizes, in its own frame, as LiDAR coordinates."""
    local, box = torch.as_tensor(local, dtype=torch.float64), torch.as_tensor(box).double()
    x, y, z = (local * box[3:6] / 2).unbind(1)
    cos, sin = math.cos(box[6]), math.sin(box[6])
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=1) + box[:3]


def frame(name, boxes, points, maps, labels=None, scores=None, truth=(), truth_labels=None, **more):
    """An explanation: K boxes, N points, maps {target: (K, N)}; truth None for no annotations."""
    boxes = torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 7)
    count = len(boxes)
    labels = torch.tensor(labels or [0] * count).long()
    scores = torch.as_tensor(scores or [0.9 - 0.01 * i for i in range(count)])
    ground_truth = None
    if truth is not None:
        truth = torch.as_tensor(truth, dtype=torch.float64).reshape(-1, 7)
        kinds = torch.tensor(truth_labels or [0] * len(truth)).long()
        ground_truth = Detections(truth, torch.ones(len(truth)), kinds, CLASSES)
    return Explanation(
        name,
        torch.as_tensor(points, dtype=torch.float64).reshape(-1, 3),
        Detections(boxes, scores, labels, CLASSES),
        Maps({target: torch.as_tensor(m, dtype=torch.float64) for target, m in maps.items()}),
        more.pop('method', 'FFAM'),
        ground_truth,
        **more,
    )


def random_frames(count, seed=0, objects=3, points=60):
    """Frames of cars all over the place, one of three with an annotation, with noisy maps."""
    generator = torch.Generator().manual_seed(seed)
    frames = []
    for number in range(count):
        boxes = torch.zeros(objects, 7, dtype=torch.float64)
        boxes[:, 0] = 10 + 12 * torch.arange(objects)
        boxes[:, 1:3] = torch.rand(objects, 2, generator=generator).double() - 0.5
        boxes[:, 3:6] = torch.tensor(SIZE) * (
            0.9 + 0.2 * torch.rand(objects, 1, generator=generator)
        )
        boxes[:, 6] = 6 * torch.rand(objects, generator=generator)
        local = 2.6 * torch.rand(objects, points, 3, generator=generator).double() - 1.3
        cloud = torch.cat([world(part, box) for part, box in zip(local, boxes, strict=True)])
        values = torch.rand(objects, len(cloud), generator=generator).double()
        frames.append(
            frame(
                f'{number:06d}', boxes, cloud, {'all': values, 'h': values.flip(1)}, truth=boxes[:1]
            )  # fmt: skip
        )
    return frames
