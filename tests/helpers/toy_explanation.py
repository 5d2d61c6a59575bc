"""An explanation of one object of which everything is known."""

from dataclasses import replace

import torch

from explain3d.core.structures import Detections, Explanation, Maps
from tests.helpers.toy_black_box import ToyBlackBox


def toy_explanation():
    """One object with four of nine points, which are the salient ones."""
    inside = torch.arange(9)[None] < 4
    points = torch.zeros(9, 4)
    points[:, 0] = torch.where(inside[0], 5.0, 8.0) + torch.arange(9) * 0.1
    boxes = torch.tensor([[5.0, 0, 0, 2, 2, 2, 0]])
    found = Detections(boxes, torch.tensor([0.9]), torch.tensor([0]), ('Car',))
    return Explanation(
        frame_id='000007',
        points=points,
        detections=found,
        maps=Maps({'all': inside.float()}),
        method='M',
        ground_truth=replace(found, scores=torch.ones(1)),
        settings={'model': 'abc', 'layer': 'x'},
        black_box=ToyBlackBox(points, boxes, inside.double()),
    )
