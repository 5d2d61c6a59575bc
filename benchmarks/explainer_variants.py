"""Which map over the voxels, from which layer and how carried to the points, lies on its object?

Many variants of FFAM from one trace a layer: with F the features, G the gradient of the target,
H W the factorisation of F, Phi the min-max over the voxels,

- FFAM           Phi(sum_c |G|) * Phi(sum_k H)
- channel sum    Phi(sum_c |G|) * Phi(sum_c F)
- gradient       Phi(sum_c |G|)
- contribution   Phi(sum_c |G F|)
- signed         Phi(|sum_c G F|)
- positive       Phi(sum_c max(G F, 0))
- negative       Phi(sum_c max(-G F, 0))
- concepts       Phi(sum_k |H_k (G W_k)|): each concept weighted by its own gradient

by the equations' neighbours or by the distance to voxel centres, with an exponent, and products of
two layers' maps at the points. Prints the metrics with their intervals and the paired differences
from FFAM at stride 4. Deletion and Insertion run the detector on perturbed frames: ask for them
for the few variants that are worth it.

    benchmarks/explainer_variants.py configs/benchmark/benchmark_second_miniworld.py
    benchmarks/explainer_variants.py CONFIG --metrics deletion insertion \
        --only "FFAM, stride8, gaussian" "FFAM, stride4 x stride8"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import Tensor

from explain3d.adapters.mmdet3d.black_box import black_box_of
from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer
from explain3d.core.devices import default_device
from explain3d.core.gradients import attribute_gradients
from explain3d.core.matching import match
from explain3d.core.nmf import Factorization, factorize
from explain3d.core.normalize import min_max
from explain3d.core.structures import Explanation, Maps, Trace
from explain3d.core.targets import Target
from explain3d.core.upsampling import find_neighbours
from explain3d.metrics.protocol import Protocol
from explain3d.metrics.saliency import METRICS, ObjectRecord, SaliencyEvaluator
from explain3d.metrics.saliency_report import differences_markdown, markdown
from explain3d.metrics.saliency_table import differences, save_records, table_of

LAYERS = ('stride2', 'stride4', 'stride8')
CONTRASTS = (1.0, 1.5)
#: Maps of the fine and the coarse layer that are multiplied, and the exponents of the product.
PAIRS = (
    ('FFAM', 'FFAM'),
    ('gradient', 'FFAM'),
    ('FFAM', 'contribution'),
    ('gradient', 'gradient'),
    ('contribution', 'contribution'),
)
PAIR_CONTRASTS = (0.5, 0.6, 0.75)
REFERENCE = 'FFAM, stride4'
#: What a gradient is reduced to, given features and factorisation.
Reduce = Callable[[Tensor, Tensor, Factorization], Tensor]
REDUCED: dict[str, Reduce] = {
    'gradient': lambda G, *_: G.abs().sum(dim=1),
    'contribution': lambda G, F, _: (G * F).abs().sum(dim=1),
    'signed': lambda G, F, _: (G * F).sum(dim=1).abs(),
    'positive': lambda G, F, _: (G * F).clamp(min=0).sum(dim=1),
    'negative': lambda G, F, _: (-G * F).clamp(min=0).sum(dim=1),
    'concepts': lambda G, _, factors: (factors.H * (G @ factors.W.T)).abs().sum(dim=1),
}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--frames', type=int, default=12)
    parser.add_argument('--target', default='all')
    parser.add_argument('--rank', type=int, default=16, help='of the factorisation')
    parser.add_argument('--metrics', nargs='+', choices=METRICS, default=['vea', 'pg', 'enpg'])
    parser.add_argument('--only', nargs='+', help='these variants, and the reference')
    parser.add_argument('--device', default=default_device())
    parser.add_argument('--records', type=Path, help='where to save the records')
    return parser.parse_args()


def voxel_maps(trace: Trace, target: Target, rank: int) -> dict[str, Tensor]:
    """Returns (K, M) maps over the voxels, each from 0 to 1."""
    features = trace.features.values
    factors = factorize(features, rank, init='coarse').normalized()
    K, M = len(trace.detections), len(features)
    maps = {name: features.new_zeros(K, M) for name in REDUCED}
    for k, gradients in attribute_gradients(trace, [target]):
        for gradient in gradients.of(target):
            for name, reduce in REDUCED.items():
                maps[name][k] += reduce(gradient, features, factors)
    maps = {name: min_max(values) for name, values in maps.items()}
    maps['FFAM'] = maps['gradient'] * min_max(factors.H.sum(dim=1))
    maps['channel sum'] = maps['gradient'] * min_max(features.sum(dim=1))
    return maps


def point_maps(trace: Trace, layer: str, target: Target, rank: int) -> Iterator[tuple[str, Tensor]]:
    """Yields names and (K, N) maps at the points of one layer's variants."""
    tables = {
        mode: find_neighbours(trace.points, trace.features, mode=mode)
        for mode in ('manhattan', 'gaussian')
    }
    for name, values in voxel_maps(trace, target, rank).items():
        for mode, table in tables.items():
            for contrast in CONTRASTS:
                marks = [] if mode == 'manhattan' else ['gaussian']
                marks += [] if contrast == 1 else [f'^{contrast:g}']
                yield ', '.join([name, layer, *marks]), table.apply(values**contrast)


def products(maps: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields names and (K, N) products of two layers' maps at the points."""
    for name in ('gradient', 'channel sum', 'FFAM'):
        for fine, coarse in zip(LAYERS, LAYERS[1:], strict=False):
            yield f'{name}, {fine} x {coarse}', maps[f'{name}, {fine}'] * maps[f'{name}, {coarse}']
    for fine, coarse in PAIRS:
        product = maps[f'{fine}, stride4, gaussian'] * maps[f'{coarse}, stride8, gaussian']
        for contrast in PAIR_CONTRASTS:
            name = f'{fine}, stride4 x {coarse}, stride8, gaussian, ^{contrast:g}'
            yield name, product**contrast


class Frames:
    """The frames of a configuration's test set, traced at each layer."""

    def __init__(self, args: argparse.Namespace) -> None:
        from mmdet3d.apis import init_model

        config = Config.fromfile(args.config)
        init_default_scope(config.get('default_scope', 'mmdet3d'))
        self.model = init_model(config, args.checkpoint or config.load_from, device=args.device)
        self.dataset = DATASETS.build(config.test_dataloader.dataset)
        self.explainers = {
            layer: FrameExplainer(
                self.model, dict(type='ChannelSum', layer=layer), args.target, dict(score_thr=0.3)
            )
            for layer in LAYERS
        }
        self.box = black_box_of(self.model, self.model.predict)
        self.only = args.only
        self.rank, self.count = args.rank, min(args.frames, len(self.dataset))
        self.digest = self.explainers['stride4'].settings['model']

    def variants(self, index: int) -> dict[str, Explanation]:
        """Returns the explanations of a frame's matched detections by every variant."""
        batch = pseudo_collate([self.dataset[index]])
        with torch.no_grad():
            results = self.model.test_step(batch)
            data = self.model.data_preprocessor(batch, False)
        explainer = self.explainers['stride4']
        frame = explainer.frames(data['inputs'], data['data_samples'])[0]
        plan = explainer.select(frame, results[0])
        rows = match(plan.detections, plan.ground_truth).true_positives.nonzero().flatten()
        if len(rows) == 0:
            return {}
        plan.detections = plan.detections[rows]
        plan.detection_indices = plan.detection_indices[rows]
        (target,) = explainer.targets
        maps: dict[str, Tensor] = {}
        for layer, explainer in self.explainers.items():
            trace = explainer.tracer.trace(
                self.model.predict, frame.inputs, results[0], plan.detections, frame.frame_id
            )
            maps.update(point_maps(trace, layer, target, self.rank))
        maps.update(products(maps))
        if self.only is not None and (unknown := set(self.only) - set(maps)):
            raise SystemExit(f'Unknown variants {sorted(unknown)}: expected some of {list(maps)}.')
        # The reference first.
        names = [REFERENCE, *(name for name in self.only or maps if name != REFERENCE)]
        return {name: replace(plan, maps=Maps({target.name: maps[name].cpu()})) for name in names}


def main() -> None:
    """Runs and prints."""
    args = parse_args()
    frames = Frames(args)
    evaluator = SaliencyEvaluator(Protocol(detector=frames.digest), args.metrics)
    records: list[ObjectRecord] = []
    for index in range(frames.count):
        records += evaluator.evaluate(frames.variants(index), frames.box)
        print(f'frame {index + 1}/{frames.count}', flush=True)
    print(markdown(table_of(records), ['all']))
    target = records[0].target
    print(differences_markdown(differences(records, (REFERENCE, target)), (REFERENCE, target)))
    if args.records:
        save_records(records, args.records)


if __name__ == '__main__':
    main()
