"""Small synthetic frames: a ground plane, cars and a pedestrian, saliency around box corners."""

import numpy as np
import pytest
import torch

from explain3d.core.structures import Detections, Explanation, Maps

CLASSES = ('Car', 'Pedestrian')
#: x, y, z, l, w, h, yaw.
BOXES = [
    [12.0, 3.0, -0.9, 4.0, 1.8, 1.6, 0.3],
    [18.0, -5.0, -0.9, 4.2, 1.7, 1.6, 2.8],
    [9.0, -2.5, -0.85, 0.8, 0.7, 1.7, -1.0],
]
GROUND = -1.7


def rotation(yaw):
    return np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])


def surface(box, count, generator):
    """Points on the sides of a box, (count, 3)."""
    local = generator.uniform(-0.5, 0.5, (count, 3))
    side = generator.integers(0, 2, count)
    local[np.arange(count), side] = generator.choice([-0.5, 0.5], count)
    local *= box[3:6]
    return np.concatenate((local[:, :2] @ rotation(box[6]).T, local[:, 2:]), 1) + box[:3]


def corner_saliency(points, box, lift):
    """Gaussians around the four corners of a box, the front left one the highest."""
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) / 2
    corners = (signs * box[3:5]) @ rotation(box[6]).T + box[:2]
    height = box[2] + lift * box[5] / 2
    values = np.zeros(len(points))
    for weight, corner in zip((1.0, 0.8, 0.6, 0.4), corners, strict=True):
        squared = ((points[:, :2] - corner) ** 2).sum(1) + (points[:, 2] - height) ** 2
        values = np.maximum(values, weight * np.exp(-squared / (0.1 * max(box[3], 0.1) ** 2)))
    return values


def build(boxes=BOXES, ground=1500, surface_points=250, targets=('all', 'h', 'yaw'), seed=0):
    generator = np.random.default_rng(seed)
    boxes = np.array(boxes, np.float64).reshape(-1, 7)
    plane = generator.uniform((-5, -15), (30, 15), (ground, 2))
    parts = [np.column_stack((plane, np.full(ground, GROUND)))]
    parts += [surface(box, surface_points, generator) for box in boxes]
    points = np.concatenate(parts)
    saliency = {
        target: np.array([corner_saliency(points, box, float(i)) for box in boxes]).reshape(
            len(boxes), len(points)
        )
        for i, target in enumerate(targets)
    }
    count = len(boxes)
    labels = torch.arange(count) % 3 // 2
    detections = Detections(
        torch.tensor(boxes).float(), torch.linspace(0.9, 0.5, count), labels, CLASSES
    )
    shifted = torch.tensor(boxes + [0.2, 0.1, 0, 0, 0, 0, 0.05]).float()
    concepts = torch.tensor(generator.random((5, len(points)))) * torch.tensor(
        [[0.1], [0.5], [0.2], [0.9], [0.0]]
    )
    return Explanation(
        frame_id='000042',
        points=torch.tensor(np.column_stack((points, np.zeros(len(points))))).float(),
        detections=detections,
        maps=Maps(
            {target: torch.tensor(values).float() for target, values in saliency.items()},
            global_map=concepts.sum(0).float(),
            concepts=concepts.float(),
        ),
        method='FFAM',
        ground_truth=Detections(shifted, torch.ones(count), labels, CLASSES),
    )


@pytest.fixture
def make():
    """The builder of frames."""
    return build


@pytest.fixture
def frame():
    """Two cars and a pedestrian."""
    return build()


@pytest.fixture
def empty():
    """Neither points nor detections."""
    frame = build(boxes=[], ground=0)
    frame.ground_truth = None
    return frame
