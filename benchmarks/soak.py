"""Does memory stay flat over many frames?

A test run's loop: the frames of a configuration again and again through a detector that explains
each on the way out and writes its file, from a thread of its own, into a temporary folder. Prints
the process's resident memory (on a GPU, the allocated memory) in ten steps, the slope over the
second half, the seconds of a frame at the start and at the end, and the longest time that adding a
result kept the model waiting.

    .venv/bin/python benchmarks/soak.py configs/ffam/ffam_second_miniworld.py --frames 1000
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.apis import init_model
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from side_by_side import Claim, arguments, report, resident_memory

from explain3d.adapters.common.recorder import Recorder
from explain3d.adapters.mmdet3d.attachment import Attachment
from explain3d.adapters.mmdet3d.frame_explainer import FrameExplainer


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__, 'frames')
    parser.set_defaults(frames=1000)
    parser.add_argument('config')
    parser.add_argument('checkpoint', nargs='?')
    parser.add_argument('--top-n', type=int, default=10)
    parser.add_argument('--distinct', type=int, default=10, help='different frames of the data set')
    return parser.parse_args()


def memory_of(device: str) -> float:
    """Returns MiB."""
    if device.startswith('cuda'):
        return torch.cuda.memory_allocated(device) / 2**20
    return resident_memory('VmRSS') / 2**20


class Waits(Recorder):
    """A recorder that notes how long the model waits for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []

    def add(self, explanation: Any, image: str | None = None) -> None:
        """Adds a result."""
        started = time.perf_counter()
        super().add(explanation, image)
        self.seconds.append(time.perf_counter() - started)


def run(args: argparse.Namespace, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Returns the memory after each frame, the seconds of each, and the waits."""
    config = Config.fromfile(args.config)
    init_default_scope('mmdet3d')
    model = init_model(config, args.checkpoint or config.load_from, device=args.device)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    explainer = dict(config.custom_hooks[0].explainer)
    frames = FrameExplainer(model, explainer, 'all', dict(score_thr=0.1, top_n=args.top_n))
    recorder = Waits(frames.settings, dir=folder, resume=False)
    distinct = min(args.distinct, len(dataset))
    batches = [pseudo_collate([dataset[i]]) for i in range(distinct)]
    memory, seconds = [], []
    with Attachment(model, lambda: (frames, recorder)), torch.no_grad():
        for i in range(args.frames):
            started = time.perf_counter()
            model.test_step(batches[i % distinct])
            seconds.append(time.perf_counter() - started)
            gc.collect()
            memory.append(memory_of(args.device))
    return memory, seconds, recorder.seconds


def main() -> None:
    """Runs, prints, saves."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory, seconds, waits = run(args, Path(folder))
    half = args.frames // 2
    # A least-squares line; frames differ in size, so that the last minus the first would not do.
    slope = 1000 * float(np.polyfit(np.arange(half), memory[-half:], 1)[0]) if half > 1 else 0.0
    step = max(1, args.frames // 10)
    print(f'{args.config}, {args.frames} frames, at most {args.top_n} detections each')
    print('MiB after frames', {i + 1: round(memory[i]) for i in range(0, args.frames, step)})
    tenth = max(1, args.frames // 10)
    begin, end = (statistics.median(part) for part in (seconds[:tenth], seconds[-tenth:]))
    claims = [
        Claim('memory over the second half, MiB for 1000 frames', 'flat', f'{slope:+.1f}'),
        Claim('memory at the end less half-way, MiB', 'flat', f'{memory[-1] - memory[half]:+.1f}'),
        Claim('seconds of a frame, the last tenth / the first', '1', f'{end / begin:.2f}'),
        Claim('the model waits for a result to be written, seconds at most',
              'far below a frame', f'{max(waits):.4f}'),
    ]  # fmt: skip
    report(args, claims, {'memory MiB': memory, 'seconds': seconds, 'waits': waits})


if __name__ == '__main__':
    main()
