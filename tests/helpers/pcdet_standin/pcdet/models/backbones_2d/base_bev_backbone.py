"""Stages of convolutions on the map, and their upsampled outputs side by side."""

import torch
from torch import nn


def _norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class BaseBEVBackbone(nn.Module):
    def __init__(self, model_cfg, input_channels):
        super().__init__()
        self.model_cfg = model_cfg
        self.blocks, self.deblocks = nn.ModuleList(), nn.ModuleList()
        for depth, stride, width, factor, out in zip(
            model_cfg.LAYER_NUMS, model_cfg.LAYER_STRIDES, model_cfg.NUM_FILTERS,
            model_cfg.UPSAMPLE_STRIDES, model_cfg.NUM_UPSAMPLE_FILTERS, strict=True,
        ):  # fmt: skip
            first = nn.Conv2d(input_channels, width, 3, stride=stride, bias=False)
            layers = [nn.ZeroPad2d(1), first, _norm(width), nn.ReLU()]
            for _ in range(depth):
                layers += [nn.Conv2d(width, width, 3, padding=1, bias=False)]
                layers += [_norm(width), nn.ReLU()]
            self.blocks.append(nn.Sequential(*layers))
            up = nn.ConvTranspose2d(width, out, factor, stride=factor, bias=False)
            self.deblocks.append(nn.Sequential(up, _norm(out), nn.ReLU()))
            input_channels = width
        self.num_bev_features = sum(model_cfg.NUM_UPSAMPLE_FILTERS)

    def forward(self, data_dict):
        x, maps = data_dict['spatial_features'], []
        for block, deblock in zip(self.blocks, self.deblocks, strict=True):
            x = block(x)
            maps.append(deblock(x))
        data_dict['spatial_features_2d'] = torch.cat(maps, dim=1)
        return data_dict
