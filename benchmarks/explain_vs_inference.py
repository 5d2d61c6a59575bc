"""What does explaining a frame cost next to detecting in it?

Both are measured in one run, in turn, frame by frame: ``test_step`` of the detector (voxelisation,
network, NMS), and FFAM for the detections of that frame (the gradients, the factorisation, the
upsampling; a second pass where the first does not serve). Prints medians, their ratio, and its
spread over the frames; saves them as JSON.

    .venv/bin/python benchmarks/explain_vs_inference.py configs/ffam/ffam_second_miniworld.py
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from side_by_side import Claim, Ratio, arguments, report, timed

from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__, 'frames')
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--top-n', type=int, nargs='+', default=[1, 5, 20])
    parser.add_argument('--target', default='all')
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Iterator[dict]:
    """Yields a record for each frame and number of detections."""
    from mmdet3d.apis import init_model

    config = Config.fromfile(args.config)
    init_default_scope('mmdet3d')
    model = init_model(config, args.checkpoint or config.load_from, device=args.device)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    explainer = config.custom_hooks[0].explainer
    explainers = {
        n: FrameExplainer(model, dict(explainer), args.target, dict(score_thr=0.1, top_n=n))
        for n in args.top_n
    }
    for i in range(args.frames + 1):
        batch = pseudo_collate([dataset[i % len(dataset)]])
        with torch.no_grad(), ExitStack() as stack:
            notes = {n: stack.enter_context(f.recording()) for n, f in explainers.items()}
            seconds, results = timed(functools.partial(model.test_step, batch), args.device)
            data = model.data_preprocessor(batch, False)
        for n, frames in explainers.items():
            frame = frames.frames(data['inputs'], data['data_samples'])[0]
            frame = replace(frame, first=notes[n].frame(0, 1) if notes[n] else None)
            plan = frames.select(frame, results[0])
            explain = functools.partial(frames.explain, model.predict, frame, results[0], plan)
            spent, _ = timed(explain, args.device)
            if i > 0:  # The first frame warms up, and finds out how far the head looks.
                yield {
                    'frame': frame.frame_id,
                    'top_n': n,
                    'detections': len(plan.detections),
                    'points': len(plan.points),
                    'inference': seconds,
                    'explanation': spent,
                }


def show(records: list[dict], args: argparse.Namespace) -> list[Claim]:
    """Prints the table and returns what is claimed."""
    print(f'{args.config}, target {args.target}, {args.frames} frames')
    print('top_n  detections  inference s  explanation s  ratio (min to max)')
    claims = []
    for n in args.top_n:
        group = [r for r in records if r['top_n'] == n]
        seconds = {k: [r[k] for r in group] for k in ('inference', 'explanation')}
        ratio = Ratio.of(seconds['explanation'], seconds['inference'])
        inference, explanation = (statistics.median(values) for values in seconds.values())
        count = statistics.median(r['detections'] for r in group)
        print(f'{n:5d}  {count:10g}  {inference:11.3f}  {explanation:13.3f}  {ratio}')
        what = f'{Path(args.config).stem}, {count:g} detections a frame, in inferences'
        claims.append(Claim(what, 'not set for small maps', ratio))
    return claims


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    records = list(measure(args))
    report(args, show(records, args), {'records': records})


if __name__ == '__main__':
    main()
