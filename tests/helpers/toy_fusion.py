"""Parts of a toy in the manner of BEVFusion, of torch alone; either host's toy is made of them.

Images and LiDAR depth are lifted by a view transform whose pooling torch's dispatch does not see, a
fuser joins the camera's map and the LiDAR's, a decoder refines queries. Maps are (B, C, 12, 12),
rows along x: cells of 2 m.
"""

import torch
from torch import nn

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
        depth = torch.zeros(len(points), views, 1, height, width, dtype=points[0].dtype)
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


def randomised(model):
    """Gives it weights, and statistics of BatchNorm, that are not trivial."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(1.5, 3)
            module.bias.normal_(0, 0.3)
    return model
