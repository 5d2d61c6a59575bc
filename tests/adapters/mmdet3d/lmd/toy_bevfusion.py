"""A toy with the interfaces of MMDetection3D's BEVFusion; its frames are those of fusion_cases.

A head of TransFusion's kind makes queries of a heat map's peaks and boxes of queries.
"""

from types import SimpleNamespace

import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import nn
from torch.nn import functional as F

from tests.helpers.toy_fusion import (
    CELLS,
    CLASSES,
    LOW,
    QUERIES,
    SIZE,
    WIDTH,
    Decoder,
    Fuser,
    Predictions,
    ViewTransform,
    randomised,
)


class TransFusionHead(nn.Module):
    """Queries from the peaks of a heat map, boxes from queries."""

    num_proposals = QUERIES

    def __init__(self, layers):
        super().__init__()
        self.shared_conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.heatmap_head = nn.Conv2d(WIDTH, CLASSES, 3, padding=1)
        self.class_encoding = nn.Conv1d(CLASSES, WIDTH, 1)
        self.decoder = nn.ModuleList(Decoder() for _ in range(layers))
        self.prediction_heads = nn.ModuleList(Predictions() for _ in range(layers))
        grid = torch.arange(CELLS) + 0.5
        self.bev_pos = torch.cartesian_prod(grid, grid)[None]
        self.bbox_coder = SimpleNamespace(
            pc_range=[LOW, LOW], out_size_factor=4, voxel_size=[SIZE / 4, SIZE / 4]
        )

    def forward(self, feats, metas):
        shared = self.shared_conv(feats[0])
        key, heat = shared.flatten(2), self.heatmap_head(shared)
        score = heat.detach().sigmoid()
        peaks = score * (score == F.max_pool2d(score, 3, 1, 1))
        top = peaks.flatten(1).argsort(-1, descending=True)[:, :QUERIES]
        self.query_labels, cell = top // CELLS**2, top % CELLS**2
        query = key.gather(2, cell[:, None].expand(-1, WIDTH, -1))
        one_hot = F.one_hot(self.query_labels, CLASSES).transpose(1, 2)
        query += self.class_encoding(one_hot.to(query.dtype))
        grid = self.bev_pos.to(query.dtype).repeat(len(query), 1, 1)
        places = grid.gather(1, cell[..., None].expand(-1, -1, 2))
        found = []
        for decoder, predict in zip(self.decoder, self.prediction_heads, strict=True):
            query = decoder(query, key, places, grid)
            out = predict(query)
            out['center'] = out['center'] + places.transpose(1, 2)
            places = out['center'].detach().clone().transpose(1, 2)
            found.append(out)
        found = {kind: torch.cat([out[kind] for out in found], -1) for kind in found[0]}
        found['query_heatmap_score'] = peaks.flatten(2).gather(
            2, cell[:, None].expand(-1, CLASSES, -1)
        )
        found['dense_heatmap'] = heat
        return ([found],)

    def predict(self, feats, metas):
        ((found,),) = self(feats, metas)
        last = {kind: value[..., -QUERIES:] for kind, value in found.items()}
        chosen = F.one_hot(self.query_labels, CLASSES).transpose(1, 2)
        score = last['heatmap'].sigmoid() * found['query_heatmap_score'] * chosen
        score, label = score.max(1)
        # Decoding works in place, as BEVFusion's does.
        last['center'] *= SIZE
        last['center'] += LOW
        last['dim'].exp_()
        bottom = last['height'] - last['dim'][:, 2:] / 2
        yaw = torch.atan2(last['rot'][:, :1], last['rot'][:, 1:])
        boxes = torch.cat([last['center'], bottom, last['dim'], yaw, last['vel']], 1)
        return [
            InstanceData(
                bboxes_3d=LiDARInstance3DBoxes(b.T, box_dim=9), scores_3d=s, labels_3d=n.int()
            )
            for b, s, n in zip(boxes, score, label, strict=True)
        ]


class ToyBEVFusion(Base3DDetector):
    """Camera branch with LiDAR depth, LiDAR branch, fuser, backbone, head."""

    def __init__(self, layers=1):
        super().__init__(data_preprocessor=dict(type='Det3DDataPreprocessor'))
        self.img_backbone = nn.Sequential(nn.Conv2d(3, 6, 5, 4, 2), nn.ReLU(True))
        self.view_transform = ViewTransform()
        self.pts_middle_encoder = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(True))
        self.fusion_layer = Fuser((4, 5), WIDTH)
        self.pts_backbone = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(True))
        self.bbox_head = TransFusionHead(layers)

    def lidar_map(self, points):
        """Points and mean height of each cell; fails on clouds without points, as BEVFusion's."""
        cells = [((p[:, :2] - LOW) / SIZE).long().clamp(0, CELLS - 1) for p in points]
        number = [i * CELLS**2 + c[:, 0] * CELLS + c[:, 1] for i, c in enumerate(cells)]
        frames = int(number[-1][-1]) // CELLS**2 + 1
        number, points = torch.cat(number), torch.cat(points)
        rows = torch.stack([torch.ones_like(points[:, 2]), points[:, 2]], 1)
        maps = rows.new_zeros(frames * CELLS**2, 2).index_add_(0, number, rows)
        return (maps / 10).view(-1, CELLS, CELLS, 2).permute(0, 3, 1, 2)

    def extract_feat(self, inputs, samples=None):
        images = inputs['imgs'] / 255
        dtype = self.fusion_layer[0].weight.dtype
        features = self.img_backbone(images.flatten(0, 1).to(dtype)).unflatten(0, images.shape[:2])
        camera = self.view_transform(features, inputs['points'], images.shape[-2:])
        lidar = self.pts_middle_encoder(self.lidar_map(inputs['points']).to(dtype))
        return [self.pts_backbone(self.fusion_layer([camera, lidar]))]

    def predict(self, inputs, samples, **kwargs):
        found = self.bbox_head.predict(self.extract_feat(inputs), None)
        return self.add_pred_to_datasample(samples, found)

    def loss(self, *args, **kwargs):
        raise NotImplementedError

    def _forward(self, inputs, samples=None, **kwargs):
        return self.bbox_head(self.extract_feat(inputs), None)


def build(layers=1, seed=0):
    """Builds it with weights, and statistics of BatchNorm, that are not trivial."""
    torch.manual_seed(seed)
    return randomised(ToyBEVFusion(layers).eval().requires_grad_(False))
