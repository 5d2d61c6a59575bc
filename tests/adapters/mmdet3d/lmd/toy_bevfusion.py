"""A toy with the interfaces of MMDetection3D's BEVFusion; its frames are those of fusion_cases.

Images and LiDAR depth are lifted by a view transform whose pooling torch's dispatch does not see, a
fuser joins the camera's map and the LiDAR's, and a head of TransFusion's kind makes queries of a
heat map's peaks and boxes of queries. Maps are (B, C, 12, 12), rows along x: cells of 2 m.
"""

from types import SimpleNamespace

import torch
from mmdet3d.models import Base3DDetector
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import nn
from torch.nn import functional as F

CELLS, SIZE, LOW = 12, 2.0, -12.0
DEPTHS, QUERIES, CLASSES, WIDTH = 3, 10, 3, 8


class Unseen(torch.autograd.Function):
    """Sums rows by number, unseen by torch's dispatch as compiled code is."""

    @staticmethod
    def forward(ctx, rows, number, count):
        with torch._C.DisableTorchFunctionSubclass():
            return rows.new_zeros(count, rows.shape[1]).index_add_(0, number, rows)


class ViewTransform(nn.Module):
    """Lifts image features along depths that images and LiDAR points together tell."""

    def __init__(self, channels=4):
        super().__init__()
        self.dtransform = nn.Sequential(
            nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(True), nn.Conv2d(3, 3, 5, 4, 2)
        )
        self.depthnet = nn.Conv2d(3 + 6, DEPTHS + channels, 3, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(True))

    def get_geometry(self, batch, views, height, width):
        """Cells (B, N, D, h, w, 3) of the lifted features: rays that turn with the column."""
        view, depth, row, column = torch.meshgrid(
            *map(torch.arange, (views, DEPTHS, height, width)), indexing='ij'
        )
        angle = (view + column / width) * 6.283 / views
        reach = 1.0 + 2.2 * depth + 0.1 * row
        places = [CELLS / 2 + reach * angle.cos(), CELLS / 2 + reach * angle.sin(), 0 * angle]
        return torch.stack(places, -1).expand(batch, *view.shape, 3)

    def bev_pool(self, geom_feats, x):
        """Sums features (B, N, D, h, w, C) by cell."""
        cells = geom_feats[..., :2].long().flatten(1, -2)
        batch = torch.arange(len(x))[:, None].expand(cells.shape[:2])
        inside = ((cells >= 0) & (cells < CELLS)).all(-1)
        number = ((batch * CELLS + cells[..., 0]) * CELLS + cells[..., 1])[inside]
        rows = Unseen.apply(x.flatten(1, -2)[inside], number, len(x) * CELLS * CELLS)
        return rows.view(-1, CELLS, CELLS, x.shape[-1]).permute(0, 3, 1, 2).contiguous()

    def depth_images(self, points, views, height, width):
        """Distances (B, N, 1, H, W) at pixels that turn with the azimuth."""
        depth = torch.zeros(len(points), views, 1, height, width)
        for image, cloud in zip(depth, points, strict=True):
            turn = torch.atan2(cloud[:, 1], cloud[:, 0]) / 6.2832 + 0.5
            column = (turn * views * width).long().clamp(0, views * width - 1)
            row = ((cloud[:, 2] + 2) / 3 * height).long().clamp(0, height - 1)
            image[column // width, 0, row, column % width] = cloud[:, :2].norm(dim=1)
        return depth

    def forward(self, x, points, size):
        batch, views, _, height, width = x.shape
        depth = self.depth_images(points, views, *size).flatten(0, 1)
        x = torch.cat([self.dtransform(depth.to(x.dtype)), x.flatten(0, 1)], 1)
        x = self.depthnet(x)
        x = x[:, :DEPTHS].softmax(1)[:, None] * x[:, DEPTHS:, None]
        x = x.unflatten(0, (batch, views)).permute(0, 1, 3, 4, 5, 2)
        return self.downsample(self.bev_pool(self.get_geometry(batch, views, height, width), x))


class Fuser(nn.Sequential):
    """Concatenation, convolution, BatchNorm, ReLU."""

    def __init__(self, channels, width):
        super().__init__(
            nn.Conv2d(sum(channels), width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
        )

    def forward(self, maps):
        return super().forward(torch.cat(maps, 1))


class Decoder(nn.Module):
    """Self-attention among queries, cross-attention to the map, a small network."""

    def __init__(self):
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.cross = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, 12), nn.ReLU(True), nn.Linear(12, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.position = nn.Sequential(nn.Conv1d(2, WIDTH, 1), nn.ReLU(True))

    def forward(self, query, key, places, grid):
        place, keyed = (self.position(p.transpose(1, 2)).transpose(1, 2) for p in (places, grid))
        query, key = query.transpose(1, 2), key.transpose(1, 2)
        moved = query + place
        query = self.norms[0](query + self.own(moved, moved, moved)[0])
        found = self.cross(query + place, key + keyed, key + keyed)[0]
        query = self.norms[1](query + found)
        return self.norms[2](query + self.ffn(query)).transpose(1, 2)


class Predictions(nn.Module):
    """One small network for each kind of output."""

    kinds = {'center': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2, 'heatmap': CLASSES}

    def __init__(self):
        super().__init__()
        self.nets = nn.ModuleDict(
            {
                kind: nn.Sequential(
                    nn.Conv1d(WIDTH, 6, 1), nn.BatchNorm1d(6), nn.ReLU(True), nn.Conv1d(6, size, 1)
                )
                for kind, size in self.kinds.items()
            }
        )

    def forward(self, query):
        return {kind: net(query) for kind, net in self.nets.items()}


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
    model = ToyBEVFusion(layers).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(1.5, 3)
            module.bias.normal_(0, 0.3)
    return model
