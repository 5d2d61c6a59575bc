"""What do the gradients of all detections of a frame cost, in windows and one pass each?

Stock SECOND at full size with random weights, one point cloud, the candidates nearest to K places
at which there are points. In one run and in turn: an inference, the second pass, the gradients in
windows, the gradients by one backward pass each. Prints medians of the processor seconds (on a GPU,
seconds), their ratios and the largest difference between the two; saves them as JSON.

    .venv/bin/python benchmarks/gradients_windowed.py data/mini_kitti/training/velodyne/000200.bin
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectors_on_cpu import batch_of, build
from mmengine.registry import init_default_scope

from explain3d.adapters.mmdet3d.frames import one_frame
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.gradients import reduce_gradients
from explain3d.core.structures import Detections, Trace
from explain3d.core.targets import parse_targets

CONFIG = 'second/second_hv_secfpn_8xb6-80e_kitti-3d-3class.py'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cloud', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('--config', default=CONFIG, help="one of MMDetection3D's")
    parser.add_argument('--layer', default='stride4')
    parser.add_argument('--detections', type=int, default=20)
    parser.add_argument('--targets', nargs='+', default=['all'])
    parser.add_argument('--runs', type=int, default=7)
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, help='where to save the figures')
    return parser.parse_args()


def seconds_of(step: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Returns what ``step`` took, and what it returned."""
    if device == 'cpu':
        started = time.process_time()
        value = step()
        return time.process_time() - started, value
    torch.cuda.synchronize()
    started = time.perf_counter()
    value = step()
    torch.cuda.synchronize()
    return time.perf_counter() - started, value


def objects_of(tracer: Tracer, model: Any, frame: dict, sample: Any, count: int) -> Detections:
    """Returns the candidates nearest to points that are far from each other."""
    points = frame['points'][0][:, :2]
    chosen = [0]
    distance = torch.full((len(points),), torch.inf, device=points.device)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
        chosen.append(int(distance.argmax()))
    with torch.no_grad():
        candidates = tracer._run(model.predict, frame, sample)
        pool = candidates.of_label(0)
        places = candidates.places(pool)
        index = torch.stack([(places - points[i]).norm(dim=1).argmin() for i in chosen])
        labels = torch.zeros_like(index)
        return Detections(
            candidates.boxes(pool[index]), candidates.scores(pool[index], labels), labels, ()
        )


def measure(args: argparse.Namespace) -> tuple[dict[str, list[float]], float, Trace]:
    """Returns the seconds of each side, the largest relative difference, and a trace."""
    cloud = np.fromfile(args.cloud, np.float32).reshape(-1, 4)
    model, columns = build(args.config)
    model.to(args.device)
    targets, sides, worst = parse_targets(args.targets), {}, 0.0
    with torch.no_grad():
        data = model.data_preprocessor(batch_of(cloud, columns, model), False)
        frame, sample = one_frame(data['inputs'], 0, 1), data['data_samples'][0]
    tracer = Tracer(model, args.layer)
    detections = objects_of(tracer, model, frame, sample, args.detections)

    def note(name: str, step: Callable[[], Any]) -> Any:
        seconds, value = seconds_of(step, args.device)
        sides.setdefault(name, []).append(seconds)
        return value

    for run in range(args.runs + 1):
        with torch.no_grad():
            note(
                'inference',
                lambda: model.predict(dict(frame), [type(sample)(metainfo=sample.metainfo)]),
            )
        trace = note(
            'second pass', lambda: tracer.trace(model.predict, frame, sample, detections, '')
        )
        fast = note('windows', lambda t=trace: reduce_gradients(t, targets))
        slow = note(
            'one pass each', lambda t=trace: reduce_gradients(replace(t, gradients=None), targets)
        )
        for name, value in slow.items():
            worst = max(worst, float((fast[name] - value).abs().amax() / value.abs().amax()))
        if run == 0:  # It warms up, and finds out how far the head looks.
            sides = {name: [] for name in sides}
    return sides, worst, trace


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    warnings.simplefilter('ignore')
    init_default_scope('mmdet3d')
    sides, worst, trace = measure(args)
    machine = f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads'
    print(f'{args.config}, {args.layer}, {args.detections} detections, targets {args.targets}')
    print(f'{args.device}, torch {torch.__version__}, {machine}, {args.runs} runs')
    rows = {}
    for name, values in sides.items():
        ratios = [value / one for value, one in zip(values, sides['inference'], strict=True)]
        rows[name] = {
            'seconds': statistics.median(values),
            'of an inference': statistics.median(ratios),
            'from': min(ratios),
            'to': max(ratios),
        }
        row = rows[name]
        print(
            f'{name:14s} {row["seconds"]:8.3f} s  {row["of an inference"]:6.2f} inferences '
            f'({row["from"]:.2f} to {row["to"]:.2f})'
        )
    gain = [a / b for a, b in zip(sides['one pass each'], sides['windows'], strict=True)]
    spread = f'{min(gain):.1f} to {max(gain):.1f}'
    print(f'windows are {statistics.median(gain):.1f} times as fast ({spread})')
    print(f'largest difference {worst:.1e} of the largest value')
    print('windows in use' if trace.gradients is not None else 'no windows for this layer')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        content = {'machine': machine, 'torch': torch.__version__, 'difference': worst}
        content |= {'gain': statistics.median(gain), 'rows': rows, 'runs': sides}
        args.json.write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
