"""What does explaining a frame cost next to detecting in it?

Both are measured in one run, in turn, frame by frame: ``test_step`` of the detector (voxelisation,
network, NMS), and FFAM for the detections of that frame (the second pass with its graph, the
gradients, the factorisation, the upsampling). Prints medians, their ratio, and its spread over the
frames; saves them as JSON.

    .venv/bin/python benchmarks/explain_vs_inference.py configs/ffam/ffam_second_miniworld.py
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--frames', type=int, default=9, help='at least 7')
    parser.add_argument('--top-n', type=int, nargs='+', default=[1, 5, 20])
    parser.add_argument('--target', default='all')
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, help='where to save the figures')
    return parser.parse_args()


def timed(step: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Returns the seconds that ``step`` took, and what it returned."""
    if device != 'cpu':
        torch.cuda.synchronize()
    started = time.perf_counter()
    value = step()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - started, value


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
        with torch.no_grad():
            seconds, results = timed(functools.partial(model.test_step, batch), args.device)
            data = model.data_preprocessor(batch, False)
        for n, frames in explainers.items():
            frame = frames.frames(data['inputs'], data['data_samples'])[0]
            plan = frames.select(frame, results[0])
            explain = functools.partial(frames.explain, model.predict, frame, results[0], plan)
            spent, _ = timed(explain, args.device)
            if i > 0:  # The first frame warms up.
                yield {
                    'frame': frame.frame_id,
                    'top_n': n,
                    'detections': len(plan.detections),
                    'points': len(plan.points),
                    'inference': seconds,
                    'explanation': spent,
                }


def report(records: list[dict], args: argparse.Namespace) -> dict:
    """Prints the table and returns what is saved."""
    machine = f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'
    print(f'{args.config}, target {args.target}')
    print(f'{args.device}, torch {torch.__version__}, {machine}')
    print('top_n  detections  inference s  explanation s  ratio  (min to max)')
    rows = []
    for n in args.top_n:
        group = [r for r in records if r['top_n'] == n]
        ratios = [r['explanation'] / r['inference'] for r in group]
        row = {
            'top_n': n,
            'detections': statistics.median(r['detections'] for r in group),
            'inference': statistics.median(r['inference'] for r in group),
            'explanation': statistics.median(r['explanation'] for r in group),
            'ratio': statistics.median(ratios),
            'ratio_min': min(ratios),
            'ratio_max': max(ratios),
        }
        rows.append(row)
        print(
            f'{n:5d}  {row["detections"]:10g}  {row["inference"]:11.3f}  {row["explanation"]:13.3f}'
            f'  {row["ratio"]:5.2f}  ({row["ratio_min"]:.2f} to {row["ratio_max"]:.2f})'
        )
    return {'machine': machine, 'torch': torch.__version__, 'config': args.config, 'rows': rows}


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    records = list(measure(args))
    summary = report(records, args)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**summary, 'records': records}, indent=2) + '\n')


if __name__ == '__main__':
    main()
