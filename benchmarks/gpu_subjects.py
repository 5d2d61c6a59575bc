"""What ``gpu_checks.py`` runs: small networks, features and clouds, the same on every device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explain3d.core.structures import LayerFeatures, VoxelGeometry
from explain3d.lmd import Decomposition, Seed

ROOT = Path(__file__).parents[1]
SEEDS = (Seed('', path='a', modality='a'), Seed('', path='b', modality='b'))


class Fusion(nn.Module):
    """Convolutions, norms and activations over the sum of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.InstanceNorm2d(32), nn.GELU(),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 4, 1),
        )  # fmt: skip

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns (1, 4, H, W)."""
        return self.layers(a + b)


def fusion(device: torch.device | str) -> nn.Module:
    torch.manual_seed(0)
    return Fusion().eval().to(device)


def sensors(device: torch.device | str) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, 1, 32, 64, 64, generator=chance())
    return a.to(device), b.to(device)


def decomposed(device: torch.device | str, mode: str) -> Decomposition:
    model = fusion(device)
    with torch.no_grad(), Decomposition(model, SEEDS, ('',), mode=mode) as run:
        model(*sensors(device))
    return run


def features(rows: int, device: torch.device | str) -> Tensor:
    generator = chance()
    parts = torch.rand(rows, 12, generator=generator) @ torch.rand(12, 64, generator=generator)
    return (parts + 0.1 * torch.rand(rows, 64, generator=generator)).to(device)


def scene(device: torch.device | str) -> tuple[Tensor, LayerFeatures]:
    generator, shape = chance(), (4, 80, 80)
    cells = torch.randperm(4 * 80 * 80, generator=generator)[:6000]
    coords = torch.stack([cells // 6400, cells // 80 % 80, cells % 80], 1)
    geometry = VoxelGeometry((0.0, 0.0, 0.0), (0.1, 0.1, 0.2), (4.0, 4.0, 4.0))
    layer = LayerFeatures(torch.rand(6000, 1, generator=generator), coords, shape, geometry)
    points = torch.rand(30000, 3, generator=generator) * torch.tensor([32.0, 32.0, 3.2])
    return points.to(device), moved(layer, device)


def moved(layer: LayerFeatures, device: torch.device | str) -> LayerFeatures:
    values, coords = layer.values.to(device), layer.coords.to(device)
    return LayerFeatures(values, coords, layer.spatial_shape, layer.geometry, layer.name)


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tiny() -> Any:
    sys.path.insert(0, str(ROOT))
    from tests.adapters.mmdet3d import tiny_detectors

    return tiny_detectors


def explained(device: torch.device | str, method: dict) -> Tensor:
    """Returns a small PointPillars' maps, (K, N), on the CPU."""
    from explain3d.adapters.mmdet3d.api import explain

    small = tiny()
    model = small.build(small.pointpillars()).to(device)
    batch = small.batch(small.cloud(0))
    return explain(model, batch, dict(layer='bev', **method), select=dict(top_n=5, score_thr=0))[
        0
    ].saliency


def leaves(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from leaves(one)
    elif hasattr(value, '__dict__'):
        yield from leaves(vars(value))


def flat(value: Tensor) -> Tensor:
    return value.detach().cpu().double().flatten()
