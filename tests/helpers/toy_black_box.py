"""A detector of points that can be solved by hand.

Each object is a box with a weight for each of its points; there is one candidate an object: its
box, shifted by (1 - e) times its length along x, where e is the part of the weights that is there,
with the score e. Points farther from a candidate's place than ``reach`` have no weight for it.
"""

import torch

from explain3d.core.black_box import BlackBox
from explain3d.core.structures import Detections


class ToyBlackBox(BlackBox):
    def __init__(self, points, boxes, weights, labels=None, reach=None, batch_size=4):
        super().__init__(batch_size)
        self.points, self.boxes, self.weights = points, boxes, weights
        self.labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else labels
        self._reach = reach
        self.asked = []

    def evidence(self, cloud):
        """(K,) share of each object's weights that is in the cloud; points are known by value."""
        there = (self.points[:, None] == cloud[None]).all(dim=2).any(dim=1)
        return (self.weights * there).sum(dim=1) / self.weights.sum(dim=1)

    def candidates(self, clouds, score_thr):
        found = []
        for cloud in clouds:
            self.passes += 1
            self.work += 1
            e = self.evidence(cloud)
            boxes = self.boxes.clone()
            boxes[:, 0] += (1 - e) * boxes[:, 3]
            high = e > score_thr
            found.append(Detections(boxes[high], e[high], self.labels[high], ('toy', 'other')))
        return found

    def candidates_in(self, clouds, regions, score_thr, base=None, anywhere=False):
        self.asked.append((len(clouds), len(regions)))
        answers = []
        for found in self.candidates(clouds, score_thr):
            parts = []
            for region in regions:
                home = found.boxes[:, :2] - torch.tensor([region.x, region.y])
                parts.append(
                    found[(home.norm(dim=1) < region.radius) & (found.labels == region.label)]
                )
            answers.append(parts)
        return answers

    def reach(self):
        return self._reach
