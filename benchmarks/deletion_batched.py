"""What does measuring Deletion and Insertion cost, with and without shared passes?

Three sides in one run, on the same objects and maps:

- one pass a step: the stock detector (its own voxelisation) runs on the whole frame for each object
  and each of the 2 x 11 steps;
- shared: equal steps once, objects that cannot influence each other in one pass, batches;
- windows: besides, the changed part of the frame alone, and equal rows of the encoder once.

The sides take turns, frame by frame. Prints passes, the part of whole passes that was computed,
processor time, the ratios of the sums and the median of the frames' ratios, and checks that the
curves are the same. Processor time, as the machine may be busy with other work.

    .venv/bin/python benchmarks/deletion_batched.py configs/benchmark/benchmark_second_miniworld.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from side_by_side import Claim, Ratio, arguments, report, timed

from explain3d.adapters.mmdet3d.black_box import MMDet3DBlackBox
from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer
from explain3d.core.black_box import BlackBox
from explain3d.core.matching import match
from explain3d.metrics.curves import perturbation_curves
from explain3d.metrics.protocol import Protocol
from explain3d.metrics.removal import Schedule, local_regions, region_radii, removal_ranks
from explain3d.metrics.step_score import step_score

#: Sides besides one pass a step, and whether they compute the changed part alone.
SIDES = {'shared': False, 'windows': True}


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__, 'frames')
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--one-pass-steps', type=int, default=22, help='of which to time how many')
    parser.add_argument('--sides', nargs='+', default=['shared', 'windows'], choices=SIDES)
    return parser.parse_args()


def one_pass_a_step(
    box: BlackBox, points: torch.Tensor, saliency: torch.Tensor, objects: torch.Tensor,
    labels: list[int], protocol: Protocol, limit: int,
) -> tuple[torch.Tensor, int]:  # fmt: skip
    """Returns (K, 2, S) scores, NaN where not run, and the number of passes."""
    from explain3d.core.black_box import Region

    S = protocol.steps
    inside = local_regions(points, objects, protocol.region_factor)
    ranks = removal_ranks(saliency, inside, protocol.seed)
    radii = region_radii(objects, protocol.region_factor)
    out = torch.full((len(objects), 2, S), torch.nan, dtype=torch.float64)
    steps = [(kind, s) for kind in range(2) for s in range(S)]
    chosen = steps[:: max(1, len(steps) // limit)][:limit]
    for k, item in enumerate(objects):
        plan = Schedule.of(ranks[k], inside[k], S)
        region = Region(float(item[0]), float(item[1]), float(radii[k]), labels[k])
        for kind, s in chosen:
            cloud = points[plan.inserted(s) if kind else plan.deleted(s)]
            (found,) = box.candidates_in([cloud], [region], protocol.score_thr)[0]
            out[k, kind, s] = step_score(found, item)
    return out, len(objects) * len(chosen)


def main() -> None:
    """Measures, checks, prints."""
    from mmdet3d.apis import init_model

    args = parse_args()
    config = Config.fromfile(args.config)
    init_default_scope('mmdet3d')
    model = init_model(config, args.checkpoint or config.load_from, device=args.device)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    frames = FrameExplainer(model, dict(type='ChannelSum'), 'all', dict(score_thr=0.3))
    protocol = Protocol()
    sides: dict[str, dict[str, Any]] = {}
    objects_in_all = 0
    for i in range(min(args.frames, len(dataset))):
        batch = pseudo_collate([dataset[i]])
        with torch.no_grad():
            results = model.test_step(batch)
            data = model.data_preprocessor(batch, False)
        frame = frames.frames(data['inputs'], data['data_samples'])[0]
        plan = frames.select(frame, results[0])
        matches = match(plan.detections, plan.ground_truth)
        rows = matches.true_positives.nonzero().flatten()
        if len(rows) == 0:
            continue
        saliency = frames.explain(model.predict, frame, results[0], plan).saliency[rows.cpu()]
        objects = plan.ground_truth[matches.indices[rows]].boxes.cpu()
        labels = plan.detections.labels[rows].tolist()
        points = plan.points.cpu()
        objects_in_all += len(rows)

        stock = MMDet3DBlackBox(model, batch_size=1, windows=False, fast_voxels=False)
        if i == 0:
            stock.candidates([points], 0.1)  # Warms up.
        spent, (scores, passes) = timed(
            lambda s=saliency, o=objects, n=labels, p=points, b=stock: one_pass_a_step(
                b, p, s, o, n, protocol, args.one_pass_steps
            ),
            args.device,
        )
        scale = 22 * len(objects) / passes
        add(sides, 'one pass a step', passes * scale, passes * scale, spent * scale)
        for name in args.sides:
            box = MMDet3DBlackBox(model, batch_size=args.batch_size, windows=SIDES[name])
            spent, curves = timed(
                lambda s=saliency, o=objects, n=labels, p=points, b=box: perturbation_curves(
                    b, p, {'m': s}, o, n, protocol
                )['m'],
                args.device,
            )
            add(sides, name, box.passes, box.work, spent)
            ours = torch.stack([curves.deletion, curves.insertion], dim=1)
            there = ~scores.isnan()
            worst = float((ours - scores)[there].abs().amax())
            sides[name]['largest difference'] = max(
                sides[name].get('largest difference', 0.0), worst
            )
    claims = show(sides, objects_in_all, args)
    report(args, claims, {'objects': objects_in_all, 'sides': sides})


def add(sides: dict, name: str, passes: float, work: float, seconds: float) -> None:
    """Adds a frame's figures to a side's."""
    side = sides.setdefault(name, {'passes': 0.0, 'work': 0.0, 'seconds': 0.0})
    side['passes'] += passes
    side['work'] += work
    side['seconds'] += seconds
    side.setdefault('seconds of frames', []).append(seconds)


def show(sides: dict, objects: int, args: argparse.Namespace) -> list[Claim]:
    """Prints the table and returns what is claimed."""
    print(f'{args.config}: {objects} objects of {args.frames} frames, 2 x 11 steps each, '
          f'batches of {args.batch_size}')  # fmt: skip
    first, claims = sides['one pass a step'], []
    print('side               passes  whole passes  seconds  ratio  largest difference  of frames')
    for name, side in sides.items():
        frames = Ratio.of(first['seconds of frames'], side['seconds of frames'])
        print(
            f'{name:18s} {side["passes"]:6.0f}  {side["work"]:12.1f}  {side["seconds"]:7.1f}'
            f'  {first["seconds"] / side["seconds"]:5.1f}  '
            f'{side.get("largest difference", 0.0):18.2e}  {frames}'
        )
        if side is not first:
            what = f'Deletion and Insertion, {Path(args.config).stem}: one pass a step / {name}'
            claims.append(Claim(what, 'above 1', frames))
    if args.one_pass_steps < 22:
        print(f'(one pass a step: {args.one_pass_steps} of 22 steps were run, the rest scaled)')
    return claims


if __name__ == '__main__':
    main()
