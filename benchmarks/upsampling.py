"""What does it cost to carry maps from voxels to points, next to an inference?

Stock SECOND at full size with random weights on one point cloud; its points within the range,
repeated with a little noise until there are N, and the voxels of its layer at stride 4. In turn, in
one run: the inference; for each N the search for neighbours and the carrying of K maps, by each
kind of upsampling. Prints seconds, their ratio to the inference, and the seconds of twice as many
points over those of N: 2 is a straight line.

    .venv/bin/python benchmarks/upsampling.py data/mini_kitti/training/velodyne/000200.bin
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial

import torch
from gradients_windowed import Subject, subject_arguments
from mmengine.registry import init_default_scope
from side_by_side import Claim, Turns, report
from torch import Tensor

from explain3d.core.structures import LayerFeatures
from explain3d.core.upsampling import MODES, find_neighbours


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = subject_arguments(__doc__)
    parser.add_argument('--detections', type=int, default=20)
    parser.add_argument('--points', type=int, nargs='+', default=[30000, 60000, 120000, 240000])
    parser.add_argument('--voxels', type=int, default=12000, help='at most; chosen by chance')
    parser.add_argument('--modes', nargs='+', choices=MODES, default=MODES)
    return parser.parse_args()


def repeated(points: Tensor, count: int) -> Tensor:
    """Returns ``count`` points: those given, again and again, each time a little elsewhere."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(count, generator=generator) % len(points)
    noise = 0.05 * torch.randn(count, 3, generator=generator)
    return points[index.to(points.device), :3] + noise.to(points)


def some_of(layer: LayerFeatures, count: int) -> LayerFeatures:
    """Returns at most ``count`` rows of a layer."""
    order = torch.randperm(len(layer.coords), generator=torch.Generator().manual_seed(0))
    rows = order[:count].sort().values.to(layer.coords.device)
    return LayerFeatures(
        layer.values[rows], layer.coords[rows], layer.spatial_shape, layer.geometry, layer.name
    )


def carry(points: Tensor, layer: LayerFeatures, maps: Tensor, mode: str) -> Tensor:
    """Searches, and carries (K, M) maps to the points."""
    return find_neighbours(points, layer, mode=mode).apply(maps)


def measure(args: argparse.Namespace) -> tuple[Turns, int]:
    """Returns the seconds of each side, and the number of voxels."""
    subject = Subject.of(args)
    layer = some_of(subject.trace().features, args.voxels)
    points = subject.frame['points'][0]
    clouds = {count: repeated(points, count) for count in args.points}
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(args.detections, len(layer.coords), generator=generator).to(points)
    turns = Turns(args.device)
    with torch.no_grad():
        for run in range(args.runs + 1):
            turns.take('inference', subject.predict)
            for mode in args.modes:
                for count, cloud in clouds.items():
                    turns.take(f'{mode}, {count} points', partial(carry, cloud, layer, maps, mode))
            if run == 0:
                turns.forget()
    return turns, len(layer.coords)


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    warnings.simplefilter('ignore')
    init_default_scope('mmdet3d')
    turns, voxels = measure(args)
    print(f'{voxels} voxels, {args.detections} maps, {args.runs} rounds')
    print(turns.table('inferences', 'inference'))
    claims, size = [], f'voxels to points ({voxels} x {{count}}, {args.detections} maps)'
    for mode in args.modes:
        for count in args.points:
            name, double = f'{mode}, {count} points', f'{mode}, {2 * count} points'
            if count == 120000:
                what = f'{size.format(count=count)}, {mode!r}, in inferences'
                claims.append(Claim(what, 'below 0.1', turns.ratio(name, 'inference')))
            if double in turns.seconds:
                what = f'{mode!r}, twice {count} points / once'
                claims.append(Claim(what, '2', turns.ratio(double, name)))
    ratios = {name: turns.ratio(name, 'inference') for name in turns.seconds}
    report(args, claims, {'voxels': voxels, 'inferences': ratios, 'seconds': turns.seconds})


if __name__ == '__main__':
    main()
