"""A sparse detector whose gradients can be written down.

Points are counted in voxels; a voxel's features are F = ReLU([count, mean height, 1] E). Detection
k reads them by weights that fall with the Manhattan distance D from its anchor cell to the voxel:

    a_j[k] = b_j[k] + sum_m S[k, m] (F_m . U_j),    S[k, m] = max(0, 1 - D / reach)

so that d a_j[k] / d F[m, c] = S[k, m] U[j, c]; the score is the sigmoid of the logit.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from explain3d.core.black_box import BlackBox
from explain3d.core.structures import (
    ATTRIBUTES,
    BOX_ATTRIBUTES,
    Detections,
    LayerFeatures,
    Trace,
    VoxelGeometry,
)

#: What the head computes; the score follows from the logit.
HEADS = (*BOX_ATTRIBUTES, 'logit')


class ToyDetector(nn.Module):
    """See the module's documentation.

    Args:
        channels: Channels C of the layer.
        spatial_shape: Grid in z, y, x.
        reach: Manhattan distance in voxels at which a detection sees nothing any more.
        dense: The graph starts at a dense (1, C, D, H, W) tensor, not at the rows.
    """

    def __init__(
        self,
        channels: int = 6,
        spatial_shape: tuple[int, int, int] = (3, 10, 12),
        reach: float = 4.0,
        dense: bool = False,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.encoder = nn.Parameter(torch.randn(3, channels, generator=generator))
        self.head = nn.Parameter(0.3 * torch.randn(len(HEADS), channels, generator=generator))
        self.norm = nn.BatchNorm1d(channels)  # Never called: a mode that must not be switched.
        self.spatial_shape = spatial_shape
        self.reach = reach
        self.dense = dense
        self.geometry = VoxelGeometry((0.0, -2.0, -1.0), (0.1, 0.1, 0.2), (4.0, 4.0, 4.0))

    def points(self, n: int, seed: int = 0) -> Tensor:
        """Returns (n, 4) points, most of them inside the grid."""
        generator = torch.Generator().manual_seed(seed)
        origin = torch.tensor(self.geometry.origin)
        extent = torch.tensor(self.geometry.voxel_size) * torch.tensor(self.spatial_shape[::-1])
        places = 1.1 * torch.rand(n, 4, generator=generator) - 0.05
        return torch.cat([origin + places[:, :3] * extent, places[:, 3:]], dim=1)

    def features(self, points: Tensor) -> LayerFeatures:
        """Returns the features of the occupied voxels."""
        cells = self.geometry.cells(points)
        inside = ((cells >= 0) & (cells < torch.tensor(self.spatial_shape))).all(dim=1)
        coords, voxel = torch.unique(cells[inside], dim=0, return_inverse=True)
        count = torch.zeros(len(coords)).index_add_(0, voxel, torch.ones(len(voxel)))
        height = torch.zeros(len(coords)).index_add_(0, voxel, points[inside, 2]) / count
        inputs = torch.stack([count.log1p(), height, torch.ones_like(count)], dim=1)
        values = (inputs @ self.encoder.detach()).relu()
        return LayerFeatures(values, coords, self.spatial_shape, self.geometry, 'toy.layer')

    def anchors(self, k: int, seed: int = 0) -> Tensor:
        """Returns (k, 3) z, y, x cells where detections sit."""
        generator = torch.Generator().manual_seed(seed + 1)
        return (torch.rand(k, 3, generator=generator) * torch.tensor(self.spatial_shape)).long()

    def sight(self, anchors: Tensor, coords: Tensor) -> Tensor:
        """Returns S (K, M)."""
        distance = (anchors[:, None] - coords).abs().sum(dim=-1)
        return (1 - distance / self.reach).clamp(min=0)

    def trace(self, points: Tensor, anchors: Tensor, frame_id: str = '000007') -> Trace:
        """Returns the graph-keeping pass that an adapter would make."""
        layer = self.features(points)
        leaf, rows = self._leaf(layer)
        with torch.enable_grad():
            attributes = self.attributes(rows(leaf), layer.coords, anchors)
        detections = Detections(
            boxes=boxes_of(attributes),
            scores=attributes['score'].detach(),
            labels=torch.zeros(len(anchors), dtype=torch.long),
            class_names=('toy',),
        )
        box = ToyDetectorBox(self, anchors)
        return Trace(
            points, layer, detections, attributes, leaf, rows, frame_id,
            replay=lambda value: self.replay(value, rows, layer.coords, anchors), black_box=box,
        )  # fmt: skip

    def replay(self, value: Tensor, rows, coords: Tensor, anchors: Tensor):
        """Returns a new leaf with these features and the attributes that follow from it."""
        leaf = value.detach().clone().requires_grad_()
        return leaf, self.attributes(rows(leaf), coords, anchors)

    def attributes(self, features: Tensor, coords: Tensor, anchors: Tensor) -> dict[str, Tensor]:
        """Returns what the head reads from (M, C) features."""
        read = self.sight(anchors, coords) @ features @ self.head.T
        # Of either sign, so that sums of absolute values have something to turn around.
        bias = torch.linspace(-3, 3, len(anchors) * len(HEADS)).reshape(-1, len(HEADS))
        attributes = dict(zip(HEADS, (read + bias).unbind(dim=1), strict=True))
        attributes['score'] = attributes['logit'].sigmoid()
        return attributes

    def _leaf(self, layer: LayerFeatures):
        if not self.dense:
            return layer.values.clone().requires_grad_(), lambda tensor: tensor
        z, y, x = layer.coords.unbind(dim=1)
        volume = layer.values.new_zeros(1, layer.values.shape[1], *layer.spatial_shape)
        volume[0, :, z, y, x] = layer.values.T
        return volume.requires_grad_(), lambda tensor: tensor[0, :, z, y, x].T

    def gradient(self, trace: Trace, anchors: Tensor, name: str) -> Tensor:
        """Returns (K, M, C), the gradient of an attribute as the formula says."""
        sight = self.sight(anchors, trace.features.coords)
        source = 'logit' if name == 'score' else name
        slope = torch.ones(len(anchors))
        if name == 'score':
            score = trace.detections.scores
            slope = score * (1 - score)
        direction = self.head.detach()[HEADS.index(source)]
        return slope[:, None, None] * sight[:, :, None] * direction


def boxes_of(attributes: dict[str, Tensor]) -> Tensor:
    """Returns (K, 7) boxes of a size that boxes can have; the toy's attributes may be negative."""
    boxes = torch.stack([attributes[name].detach() for name in BOX_ATTRIBUTES], dim=1)
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 1
    return boxes


class ToyDetectorBox(BlackBox):
    """The toy as a function of the cloud: one candidate an anchor."""

    def __init__(self, toy: ToyDetector, anchors: Tensor) -> None:
        super().__init__()
        self.toy, self.anchors = toy, anchors

    @torch.no_grad()
    def candidates(self, clouds, score_thr):
        found = []
        for cloud in clouds:
            layer = self.toy.features(cloud)
            attributes = self.toy.attributes(layer.values, layer.coords, self.anchors)
            scores = attributes['score']
            labels = torch.zeros(len(scores), dtype=torch.long)
            every = Detections(boxes_of(attributes), scores, labels, ('toy',))
            found.append(every[scores > score_thr])
        return found

    def candidates_in(self, clouds, regions, score_thr, base=None, anywhere=False):
        raise NotImplementedError('No test asks the toy about regions.')


def detached(trace: Trace) -> Trace:
    """Returns the trace of a head that detaches its predictions."""
    return replace(trace, attributes={n: a.detach() for n, a in trace.attributes.items()})


__all__ = ['ATTRIBUTES', 'HEADS', 'ToyDetector', 'detached']
