"""What does a decomposition cost next to the inference that it decomposes?

SimpleBEV with random weights on a random scene, by default at full size (ResNet-101, six images of
224 x 400, 200 x 8 x 200 voxels). In turn, in one run: inference alone, with a decomposition of
the segmentation in production mode, and in check mode; for two modalities (camera, radar) and
three (camera, radar, LiDAR). Prints medians and ratios next to the bound of a decomposition that
computes every tensor behind the fusion point M + 1 times, the largest residual of check mode, and
each variant's peak memory, measured in a process of its own.

    .venv/bin/python benchmarks/lmd_cost.py --json outputs/lmd_cost.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from side_by_side import Claim, Ratio, arguments, report, resident_memory
from torch import nn

from explain3d.lmd import Decomposition
from explain3d.locations import config_path

MODELS_BY_MODALITIES = {2: 'simplebev_r101', 3: 'simplebev_r101_radar_lidar'}
VARIANTS = ('inference', 'production', 'check')
IMAGE = (224, 400)
OUTPUT = 'heads.segmentation'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = arguments(__doc__)
    parser.add_argument('--modalities', type=int, nargs='+', choices=[2, 3], default=[2, 3])
    parser.add_argument('--depth', type=int, default=101, choices=[18, 50, 101])
    parser.add_argument('--dtype', choices=['float32', 'float64'], default='float32')
    parser.add_argument('--no-memory', action='store_true', help='leave peak memory out')
    return parser.parse_args()


def build(modalities: int, args: argparse.Namespace) -> nn.Module:
    """Returns a model with random weights, whose normalisations have seen random statistics."""
    init_default_scope('mmdet3d')
    config = Config.fromfile(
        config_path(f'_base_/models/{MODELS_BY_MODALITIES[modalities]}.py')
    ).model
    backbone = config.img_encoder.backbone
    backbone.depth, backbone.init_cfg = args.depth, None
    if args.depth == 18:
        config.img_encoder.in_channels, config.img_encoder.mid_channels = (128, 256), 256
    torch.manual_seed(0)
    model = MODELS.build(config).to(args.device, getattr(torch, args.dtype)).eval()
    generator = torch.Generator(args.device).manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


def scene(model: nn.Module, args: argparse.Namespace) -> tuple[dict, list[Det3DDataSample]]:
    """Returns six random images, cameras that look all around, and random points."""
    random = np.random.default_rng(2)
    like = dict(dtype=getattr(torch, args.dtype), device=args.device)
    cam2img, cam2ref = np.tile(np.eye(4), (2, 6, 1, 1))
    cam2img[:, [0, 1], [0, 1]] = 320
    cam2img[:, [0, 1], [2, 2]] = IMAGE[1] / 2, IMAGE[0] / 2
    for pose, yaw in zip(cam2ref, np.deg2rad([0, 55, -55, 180, -110, 110]), strict=True):
        pose[[0, 2], [0, 2]], pose[0, 2], pose[2, 0] = np.cos(yaw), np.sin(yaw), -np.sin(yaw)
    features = model.rasterizers['radar'].features
    radar = np.concatenate(
        [random.uniform([-50, -1, -50], [50, 1, 50], (800, 3)), random.normal(size=(800, 16))], 1
    )
    lidar = np.concatenate(
        [random.uniform([-50, -2, -50], [50, 2, 50], (30000, 3)), random.uniform(size=(30000, 2))],
        1,
    )
    inputs = dict(
        imgs=torch.as_tensor(random.normal(size=(1, 6, 3, *IMAGE)), **like),
        radar=[torch.as_tensor(radar, **like)],
        points=[torch.as_tensor(lidar, **like)],
    )
    fields = dict(radar_fields=('x', 'y', 'z', *features))
    sample = Det3DDataSample(metainfo=dict(cam2img=cam2img, cam2ref=cam2ref, **fields))
    return inputs, [sample]


class Stopwatch:
    """Times what comes behind the fusion point."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.device, self.fusion = device, 0.0
        model.fuser.register_forward_pre_hook(lambda *_: self._mark())

    def now(self) -> float:
        """Returns the time, once the device has done what it was asked to; a CPU's is our own."""
        if self.device == 'cpu':
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _mark(self) -> None:
        self.fusion = self.now()


def run(variant: str, model: nn.Module, data: tuple) -> Decomposition | None:
    """Runs one variant once."""
    with torch.no_grad():
        if variant == 'inference':
            model(*data, mode='tensor')
            return None
        seeds = model.lmd_seeds('sensors')
        with Decomposition(model, seeds, [OUTPUT], mode=variant) as decomposition:
            model(*data, mode='tensor')
        return decomposition


def peak_memory(variant: str, modalities: int, args: argparse.Namespace, queue: Any) -> None:
    """Puts the peak memory of a process that runs one variant once, in bytes, and that before."""
    torch.set_num_threads(1)
    model = build(modalities, args)
    data = scene(model, args)
    cuda = args.device != 'cpu'
    before = torch.cuda.memory_allocated() if cuda else resident_memory('VmRSS')
    if not cuda:
        Path('/proc/self/clear_refs').write_text('5')  # Building had a peak of its own.
    run(variant, model, data)
    queue.put((torch.cuda.max_memory_allocated() if cuda else resident_memory('VmHWM'), before))


def memory_of(variant: str, modalities: int, args: argparse.Namespace) -> float:
    """Returns how far a variant's peak is above the loaded model, in GiB."""
    context = multiprocessing.get_context('spawn')
    queue = context.SimpleQueue()
    process = context.Process(target=peak_memory, args=(variant, modalities, args, queue))
    process.start()
    peak, before = queue.get()
    process.join()
    return (peak - before) / 2**30


def measure(modalities: int, args: argparse.Namespace) -> dict:
    """Measures all variants of a model; the first round warms up."""
    model = build(modalities, args)
    data = scene(model, args)
    watch = Stopwatch(model, args.device)
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    behind, residual = [], None
    for round_ in range(args.runs + 1):
        for variant in VARIANTS:
            started = watch.now()
            decomposition = run(variant, model, data)
            ended = watch.now()
            if round_:
                seconds[variant].append(ended - started)
                if variant == 'inference':
                    behind.append(ended - watch.fusion)
            if variant == 'check':
                residual = decomposition.residual
    medians = {variant: statistics.median(values) for variant, values in seconds.items()}
    part = statistics.median(b / t for b, t in zip(behind, seconds['inference'], strict=True))
    record = {
        'modalities': modalities,
        'seconds': seconds,
        'behind_fusion': part,
        'bound': 1 + modalities * part,
        'residual': residual,
        'parameters': sum(p.numel() for p in model.parameters()),
    }
    for variant in VARIANTS:
        ratio = Ratio.of(seconds[variant], seconds['inference'])
        record[variant] = {'seconds': medians[variant], 'ratio': ratio}
    del model, data
    if not args.no_memory:
        for variant in VARIANTS:
            record[variant]['memory_gib'] = memory_of(variant, modalities, args)
    return record


def show(records: Sequence[dict], args: argparse.Namespace) -> list[Claim]:
    """Prints the table and returns what is claimed."""
    print(f'SimpleBEV, ResNet-{args.depth}, {args.dtype}, random weights, output {OUTPUT}')
    print(f'medians of {args.runs} rounds')
    print('M  variant     seconds  bound  peak GiB  residual  ratio (min to max)')
    claims = []
    for record in records:
        count = record['modalities']
        for variant in VARIANTS:
            row = record[variant]
            bound = f'{record["bound"]:.2f}' if variant == 'production' else ''
            memory = f'{row["memory_gib"]:.2f}' if 'memory_gib' in row else 'n/a'
            residual = f'{record["residual"]:.1e}' if variant == 'check' else ''
            print(
                f'{count}  {variant:10s}  {row["seconds"]:7.2f}  {bound:>5s}  {memory:>8s}'
                f'  {residual:>8s}  {row["ratio"]}'
            )
        print(f'   behind the fusion point: {100 * record["behind_fusion"]:.0f} % of the inference')
        claims.append(
            Claim(
                f'LMD of SimpleBEV (ResNet-{args.depth}), {count} modalities, in inferences',
                f'the bound, {record["bound"]:.2f}',
                record['production']['ratio'],
            )
        )
    return claims


def main() -> None:
    """Measures, prints, saves."""
    args = parse_args()
    records = []
    for modalities in args.modalities:
        records.append(measure(modalities, args))
        print(f'{modalities} modalities measured', flush=True)
    report(args, show(records, args), {'records': records})


if __name__ == '__main__':
    main()
