"""How many sub-clouds a second does OccAM get through, ours and its authors' way of batching?

Sides in one run, on the same sub-clouds of the same frames:

- authors: batches of eight sub-clouds go through the whole detector, voxelisation, decoding and
  NMS included, and what is left is compared with the detections (``occam_authors``);
- authors, our voxels: the same with our voxelisation in the place of the host's operator, which on
  a CPU fills a table of the whole grid for each cloud;
- ours: ``OccAM`` as it is, without early stopping;
- ours, radius: with ``--radius``, where the detector computes what the anchors around the
  detections see. The fewer ``--detections``, the less that is.

The sides take turns, frame by frame. Prints sub-clouds a second, the ratios, and how far the maps
are apart: ours are at least as large, since a box that NMS removes may be the most similar one.
What NMS leaves is scored by both, to rounding the same.

    .venv/bin/python benchmarks/occam_batching.py configs/benchmark/benchmark_second_miniworld.py

With ``--cloud`` the configuration is one of MMDetection3D's, at full size with random weights,
whose classifier is shifted and stretched so that at least ``_FOUND`` anchors of the cloud count as
found.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectors_on_cpu import batch_of, build
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from occam_authors import BATCH_SIZE, AuthorsOccAM, most_similar
from side_by_side import Claim, Turns, arguments, report
from torch import Tensor, nn

from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
from explain3d.adapters.mmdet3d.detector import voxel_layer
from explain3d.adapters.mmdet3d.voxels import fast_layer
from explain3d.core.session import overridden
from explain3d.core.structures import Detections, Trace
from explain3d.core.targets import parse_targets
from explain3d.methods.occam import OccAM
from explain3d.methods.occam_similarity import FACTORS, similarities

OURS, RADIUS, AUTHORS, VOXELS = 'ours', 'ours, radius', 'authors', 'authors, our voxels'
#: What is printed of the maps: the records' entry, and which of the frames'.
SHOWN = {
    "maps, ours less authors', least": ('least', min),
    "maps, ours less authors', most": ('most', max),
    'maps, largest value': ('largest', max),
    'maps, radius, largest difference': ('radius', max),
    'similarities of what NMS leaves, largest difference': ('scored alike to', max),
}
#: Anchors of a detector with random weights that count as found, and its logit elsewhere.
_FOUND, _EMPTY = 200, -4.6


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__, 'frames')
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--cloud', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('--samples', type=int, default=16, help='sub-clouds of a frame')
    parser.add_argument('--detections', type=int, default=20, help='the best of a frame')
    parser.add_argument('--radius', type=float, help='of ours, in a side of its own')
    parser.add_argument('--batch-size', type=int, default=4, help='of ours')
    return parser.parse_args()


@dataclass(frozen=True)
class Subject:
    """A detector and its frames.

    Attributes:
        model: The detector.
        clouds: (N, P) points of each frame.
        density: Of the sub-clouds, see ``VoxelSampling``.
        score_thr: Boxes with a score above this count as found.
    """

    model: nn.Module
    clouds: list[Tensor]
    density: tuple[float, ...]
    score_thr: float

    @classmethod
    def of(cls, args: argparse.Namespace) -> Subject:
        """Builds the detector."""
        return cls._stock(args) if args.cloud else cls._configured(args)

    @classmethod
    def _configured(cls, args: argparse.Namespace) -> Subject:
        from mmdet3d.apis import init_model

        config = Config.fromfile(args.config)
        model = init_model(config, args.checkpoint or config.load_from, device=args.device)
        dataset = DATASETS.build(config.test_dataloader.dataset)
        frames = range(min(args.frames + 1, len(dataset)))
        clouds = [dataset[i]['inputs']['points'].to(args.device) for i in frames]
        settings = config.benchmark.methods['OccAM']
        return cls(model, clouds, tuple(settings.density), model.bbox_head.test_cfg.score_thr)

    @classmethod
    def _stock(cls, args: argparse.Namespace) -> Subject:
        model, columns = build(args.config)
        model.to(args.device)
        cloud = np.fromfile(args.cloud, np.float32).reshape(-1, 4)
        points = batch_of(cloud, columns, model)['inputs']['points'][0].to(args.device)
        stretch(model, points)
        return cls(model, [points], (0.4,), model.bbox_head.test_cfg.score_thr)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


@torch.no_grad()
def stretch(model: nn.Module, points: Tensor) -> None:
    """Makes at least ``_FOUND`` anchors count as found by a detector with random weights.

    Places without points, most of the map, get the logit that a trained classifier starts from.
    """
    head = model.bbox_head
    (logits,) = MMDet3DBlackBox(model).raw([points])[0]
    empty = logits[0].flatten(1).median(dim=1).values
    above = (logits[0] - empty[:, None, None]).flatten().topk(_FOUND).values[-1]
    scale = (_logit(head.test_cfg.score_thr) - _EMPTY) / float(above)
    head.conv_cls.weight *= scale
    head.conv_cls.bias.copy_(_EMPTY + scale * (head.conv_cls.bias - empty))


class Sides:
    """The sides on one subject.

    Args:
        subject: Detector and frames.
        args: The command line.
    """

    def __init__(self, subject: Subject, args: argparse.Namespace) -> None:
        self.subject, self.args, self.turns = subject, args, Turns(args.device)
        self.box = MMDet3DBlackBox(subject.model, batch_size=args.batch_size)
        self.authors = AuthorsOccAM(subject.model)
        settings = dict(
            samples=args.samples, check_every=args.samples, tolerance=None,
            density=subject.density, score_thr=subject.score_thr,
        )  # fmt: skip
        self.ours = {OURS: OccAM(**settings)}
        if args.radius:
            self.ours[RADIUS] = OccAM(**settings, radius=args.radius)
        self.sampling = self.ours[OURS]._sampling()

    def run(self) -> Iterator[dict[str, Any]]:
        """Yields a record for each frame but the first, which warms up."""
        for number in range(self.args.frames + 1):
            points = self.subject.clouds[number % len(self.subject.clouds)]
            record = self._frame(points)
            if number == 0:
                self.turns.forget()
            else:
                yield record

    def _frame(self, points: Tensor) -> dict[str, Any]:
        found = self.authors.detect([points])[0]
        detections = found[found.scores.argsort(descending=True)[: self.args.detections]]
        theirs = self.turns.take(AUTHORS, lambda: self._authors(points, detections))
        with our_voxels(self.subject.model):
            self.turns.take(VOXELS, lambda: self._authors(points, detections))
        found = {
            name: self.turns.take(name, lambda m=method: self._ours(m, points, detections))
            for name, method in self.ours.items()
        }
        ours = found[OURS]
        return {
            'points': len(points),
            'detections': len(detections),
            'least': float((ours - theirs).amin()),
            'most': float((ours - theirs).amax()),
            'largest': float(ours.amax()),
            'radius': float((ours - found.get(RADIUS, ours)).abs().amax()),
            'scored alike to': self._scored(points, detections),
        }

    def _authors(self, points: Tensor, detections: Detections) -> Tensor:
        return self.authors.maps(points, detections, self.sampling, self.args.samples)

    def _ours(self, method: OccAM, points: Tensor, detections: Detections) -> Tensor:
        trace = asked(points, detections, self.box)
        return method.explain(trace, parse_targets('all')).saliency['all']

    def _scored(self, points: Tensor, detections: Detections) -> float:
        """Returns the largest difference of the similarities of what NMS leaves of a batch."""
        masks = self.sampling.masks(points, range(BATCH_SIZE))
        found = self.authors.detect([points[mask] for mask in masks])
        ours = similarities(detections, found, [FACTORS])[:, :, 0]
        return float((ours - most_similar(detections, found)).abs().amax())


def asked(points: Tensor, detections: Detections, box: MMDet3DBlackBox) -> Trace:
    """Returns a trace of a frame with what OccAM needs of one, and no layer."""
    nothing = points.new_zeros(0)
    return Trace(points, None, detections, {}, nothing, None, '', black_box=box)


def our_voxels(model: nn.Module) -> ExitStack:
    """While the context lasts, ``voxels.hard_voxels`` stands in for the host's operator."""
    stack, layer = ExitStack(), voxel_layer(model)
    stack.enter_context(overridden(layer, 'forward', fast_layer(layer) or layer.forward))
    return stack


def show(sides: Sides, records: list[dict[str, Any]]) -> list[Claim]:
    """Prints the table and returns what is claimed."""
    args, turns = sides.args, sides.turns
    points = [r['points'] for r in records]
    print(f'{args.config}: {args.frames} frames of {min(points)} to {max(points)} points, '
          f'{args.samples} sub-clouds each')  # fmt: skip
    print(turns.table(f'times {OURS}', OURS))
    for name in turns.seconds:
        print(f'{name}: {args.samples / turns.median(name):.2f} sub-clouds a second')
    for what, (key, choose) in SHOWN.items():
        print(f'{what}: {choose(r[key] for r in records):.1e}')
    subject = f'OccAM, {Path(args.config).stem}: {{}} / ours'
    claims = [
        Claim(subject.format(name), 'above 1', turns.ratio(name, OURS))
        for name in (AUTHORS, VOXELS)
    ]
    if RADIUS in turns.seconds:
        what = f'{subject.format(VOXELS)}, {args.radius:g} m around {args.detections} detections'
        claims.append(Claim(what, 'above 1', turns.ratio(VOXELS, RADIUS)))
    return claims


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    init_default_scope('mmdet3d')
    sides = Sides(Subject.of(args), args)
    records = list(sides.run())
    report(args, show(sides, records), {'records': records, 'seconds': sides.turns.seconds})


if __name__ == '__main__':
    main()
