"""How do the seconds of a frame grow with its points, its detections, and with the modalities?

FFAM on stock SECOND at full size with random weights, without a second pass: for K detections of
one point cloud, and for the same cloud repeated with a little noise or thinned out to N points. LMD
on SimpleBEV for two and three modalities (``--modalities``). The settings take turns, in one run.
Fits a straight line to the medians, prints its slope and R^2, and draws the medians, the spread and
the line.

    .venv/bin/python benchmarks/scale.py CLOUD.bin --plot outputs/scale.png
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path

import numpy as np
import torch
from gradients_windowed import Subject, subject_arguments
from matplotlib.figure import Figure
from mmengine.registry import init_default_scope
from side_by_side import Claim, Turns, report
from upsampling import repeated

from explain3d.core.targets import parse_targets
from explain3d.methods import EXPLAINERS

#: For each setting (points, ...): of each value, the seconds of its rounds.
Series = dict[int, list[float]]


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = subject_arguments(__doc__)
    parser.add_argument('--detections', type=int, nargs='*', default=[1, 5, 10, 20, 40])
    parser.add_argument('--points', type=int, nargs='*', default=[15000, 30000, 60000, 120000])
    parser.add_argument('--modalities', type=int, nargs='*', choices=[2, 3], default=[2, 3])
    parser.add_argument('--depth', type=int, default=18, choices=[18, 50, 101], help='of SimpleBEV')
    parser.add_argument('--plot', type=Path, help='where to draw')
    return parser.parse_args()


class Explaining:
    """FFAM of a cloud's detections with what an inference left."""

    def __init__(self, args: argparse.Namespace, folder: Path, points: int | None, count: int):
        path = args.cloud
        if points is not None:
            cloud = torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, 4))
            inside = cloud[(cloud[:, 0] > 0) & (cloud[:, 0] < 70) & (cloud[:, 1].abs() < 40)]
            xyz = repeated(inside, points)
            path = folder / f'{points}.bin'
            torch.cat([xyz, torch.full((points, 1), 0.3)], 1).numpy().tofile(path)
        settings = argparse.Namespace(**{**vars(args), 'cloud': path, 'detections': count})
        self.subject = Subject.of(settings)
        self.explainer = EXPLAINERS.build(dict(type='FFAM', layer=args.layer))
        self.subject.trace()  # Finds out how far the head looks.
        self.first = self.subject.noted()

    def __call__(self) -> None:
        """Explains once."""
        self.explainer.explain(self.subject.trace(self.first), parse_targets('all'))


def of_ffam(args: argparse.Namespace, folder: Path, what: str) -> Series:
    """Returns the seconds for each number of points or detections."""
    values = getattr(args, what)
    runs = {
        v: Explaining(args, folder, *((v, 5) if what == 'points' else (None, v))) for v in values
    }
    turns = Turns(args.device)
    for number in range(args.runs + 1):
        for value, run in runs.items():
            turns.take(str(value), run)
        if number == 0:
            turns.forget()
    return {value: turns.seconds[str(value)] for value in values}


def of_lmd(args: argparse.Namespace) -> Series:
    """Returns the seconds of a decomposition over those of its inference, for M modalities."""
    import lmd_cost

    settings = argparse.Namespace(**{**vars(args), 'dtype': 'float32', 'no_memory': True})
    found = {}
    for count in args.modalities:
        seconds = lmd_cost.measure(count, settings)['seconds']
        pairs = zip(seconds['production'], seconds['inference'], strict=True)
        found[count] = [a / b for a, b in pairs]
    return found


def line(series: Series) -> tuple[float, float, float]:
    """Returns slope and offset of the straight line through the medians, and R^2."""
    x, y = np.array(list(series)), np.array([statistics.median(v) for v in series.values()])
    slope, offset = np.polyfit(x, y, 1)
    rest = ((y - slope * x - offset) ** 2).sum()
    whole = ((y - y.mean()) ** 2).sum()
    return float(slope), float(offset), float(1 - rest / whole) if whole else 1.0


def draw(found: dict[str, Series], path: Path) -> None:
    """Draws a panel for each setting."""
    figure = Figure(figsize=(4 * len(found), 3.2), layout='constrained')
    for axes, (name, series) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        x = np.array(list(series))
        y = np.array([statistics.median(v) for v in series.values()])
        low, high = (np.array([end(v) for v in series.values()]) for end in (min, max))
        slope, offset, straight = line(series)
        axes.errorbar(x, y, [y - low, high - y], fmt='o', capsize=3)
        axes.plot(x, slope * x + offset, '--', label=f'$R^2$ = {straight:.3f}')
        axes.set(xlabel=name, ylim=(0, None))
        axes.set_ylabel('inferences' if name == 'modalities' else 'seconds')
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, draws, prints, saves."""
    import tempfile

    args = parse_args()
    warnings.simplefilter('ignore')
    init_default_scope('mmdet3d')
    found: dict[str, Series] = {}
    with tempfile.TemporaryDirectory() as folder:
        for what in ('points', 'detections'):
            if getattr(args, what):
                found[what] = of_ffam(args, Path(folder), what)
    if args.modalities:
        found['modalities'] = of_lmd(args)
    claims = []
    for name, series in found.items():
        slope, _, straight = line(series)
        for value, seconds in series.items():
            print(f'{value} {name}: {statistics.median(seconds):.3f}')
        what = f'{name}, {min(series)} to {max(series)}: R^2 of a straight line'
        if len(series) > 2:
            claims.append(Claim(what, 'close to 1', f'{straight:.3f} (slope {slope:.3g})'))
    if args.plot:
        draw(found, args.plot)
    report(args, claims, {'series': found})


if __name__ == '__main__':
    main()
