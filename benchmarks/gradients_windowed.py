"""What does explaining all detections of a frame cost, in windows and one backward pass each?

Stock SECOND at full size with random weights, one point cloud, the candidates nearest to K places
at which there are points. In turn, in one run:

- inference: the detector's ``predict``, up to its boxes
- inference, notes taken: the same while notes are taken of it
- second pass: the frame once more with a graph, and the detections found among its candidates
- without one: the trace made of the notes
- windows: the gradients of all detections, each in its own window
- one pass each: the same gradients by one backward pass a detection (``--slow-runs`` rounds)
- FFAM, with a second pass: trace, gradients, factorisation and upsampling: the whole explanation
- FFAM: the same with what the inference left

Prints medians of the processor seconds (on a GPU, seconds), their ratios to the inference, and the
largest differences; saves them as JSON.

    .venv/bin/python benchmarks/gradients_windowed.py data/mini_kitti/training/velodyne/000200.bin
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectors_on_cpu import batch_of, build
from mmengine.registry import init_default_scope
from side_by_side import Claim, Ratio, Turns, arguments, report

from explain3d.adapters.common.first_pass import FirstPass
from explain3d.adapters.mmdet3d.frames import one_frame
from explain3d.adapters.mmdet3d.tracer import Tracer
from explain3d.core.gradients import reduce_gradients
from explain3d.core.structures import Detections, Maps, Trace
from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS

CONFIG = 'second/second_hv_secfpn_8xb6-80e_kitti-3d-3class.py'
ALL, BEFORE = 'FFAM', 'FFAM, with a second pass'


def subject_arguments(documentation: str) -> argparse.ArgumentParser:
    """Returns a command line with what ``Subject`` takes, but for the number of detections."""
    parser = arguments(documentation)
    parser.add_argument('cloud', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('--config', default=CONFIG, help="one of MMDetection3D's")
    parser.add_argument('--layer', default='stride4')
    return parser


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = subject_arguments(__doc__)
    parser.add_argument('--detections', type=int, default=20)
    parser.add_argument('--targets', nargs='+', default=['all'])
    parser.add_argument('--slow-runs', type=int, help='rounds of one pass each, default all')
    return parser.parse_args()


@dataclass
class Subject:
    """A detector, a frame, and what of it is to be explained."""

    model: Any
    tracer: Tracer
    frame: dict
    sample: Any
    detections: Detections

    @classmethod
    def of(cls, args: argparse.Namespace) -> Subject:
        """Builds the detector and chooses the detections."""
        cloud = np.fromfile(args.cloud, np.float32).reshape(-1, 4)
        model, columns = build(args.config)
        model.to(args.device)
        with torch.no_grad():
            data = model.data_preprocessor(batch_of(cloud, columns, model), False)
        frame, sample = one_frame(data['inputs'], 0, 1), data['data_samples'][0]
        tracer = Tracer(model, args.layer)
        detections = objects_of(tracer, model, frame, sample, args.detections)
        return cls(model, tracer, frame, sample, detections)

    @torch.no_grad()
    def predict(self) -> None:
        """One inference."""
        self.model.predict(dict(self.frame), [type(self.sample)(metainfo=self.sample.metainfo)])

    def noted(self) -> FirstPass | None:
        """One inference of which notes are taken, if the tracer can use them."""
        with self.tracer.recording() as notes:
            self.predict()
        return None if notes is None else notes.frame(0, 1)

    def trace(self, first: FirstPass | None = None) -> Trace:
        """The trace, by a second pass if there are no notes."""
        return self.tracer.trace(
            self.model.predict, self.frame, self.sample, self.detections, '', first
        )


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


def measure(args: argparse.Namespace) -> tuple[Turns, dict[str, float], Trace]:
    """Returns the seconds of each side, the largest differences, and a trace without windows."""
    subject, targets = Subject.of(args), parse_targets(args.targets)
    explainer = EXPLAINERS.build(dict(type='FFAM', layer=args.layer))
    turns, worst = Turns(args.device), {'no second pass': 0.0}
    slow_runs = args.runs if args.slow_runs is None else args.slow_runs

    def explained(first: FirstPass | None = None) -> Maps:
        return explainer.explain(subject.trace(first), targets)

    subject.trace()  # The first frame finds out how far the head looks.
    for run in range(args.runs + 1):
        turns.take('inference', subject.predict)
        first = turns.take('inference, notes taken', subject.noted)
        second = turns.take('second pass', subject.trace)
        trace = turns.take('without one', lambda f=first: subject.trace(f))
        fast = turns.take('windows', lambda t=trace: reduce_gradients(t, targets))
        if run < slow_runs:
            slow = turns.take(
                'one pass each',
                lambda t=second: reduce_gradients(replace(t, gradients=None), targets),
            )
            worst['windows'] = max(worst.get('windows', 0.0), difference(fast, slow))
        before = turns.take(BEFORE, explained)
        after = turns.take(ALL, lambda f=first: explained(f))
        found = difference(after.saliency, before.saliency)
        worst['no second pass'] = max(worst['no second pass'], found)
        if run == 0:
            turns.forget()
    return turns, worst, trace


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Returns the largest difference of maps, relative to the largest value."""
    return max(float((one[n] - v).abs().amax() / v.abs().amax()) for n, v in other.items())


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    warnings.simplefilter('ignore')
    init_default_scope('mmdet3d')
    turns, worst, trace = measure(args)
    slow = turns.seconds.pop('one pass each', [])
    gain = Ratio.of(slow, turns.seconds['windows'][: len(slow)]) if slow else None
    each = Ratio.of(slow, turns.seconds['inference'][: len(slow)]) if slow else None
    print(f'{args.config}, {args.layer}, {args.detections} detections, targets {args.targets}')
    print(f'{len(trace.points)} points, {len(trace.features.coords)} voxels, {args.runs} rounds')
    print(turns.table('inferences', 'inference'))
    print('windows in use' if trace.gradients is not None else 'no windows for this layer')
    if slow:
        print(f'one backward pass each: {each} inferences; windows are {gain} times as fast')
    for name, value in worst.items():
        print(f'largest difference, {name}: {value:.1e} of the largest value')
    rows = {name: turns.ratio(name, 'inference') for name in turns.seconds}
    count = f'{args.detections} detections'
    claims = [Claim(f'FFAM of {count}, everything, in inferences', 'at most 2', rows[ALL])]
    if slow:
        what = f'gradients of {count}, one backward pass each / windows'
        claims.append(Claim(what, 'at least 8', gain))
    report(args, claims, {
        'inferences': rows, 'one pass each': each, 'differences': worst, 'seconds': turns.seconds
    })  # fmt: skip


if __name__ == '__main__':
    main()
