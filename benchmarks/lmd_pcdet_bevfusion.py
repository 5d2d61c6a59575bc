"""LMD of OpenPCDet's BevFusion: conservation at every layer and at the boxes, time and memory.

Takes a checkout of OpenPCDet, which needs neither CUDA nor its compiled operators, and one
nuScenes keyframe as plain files (``calib.json`` with K and sensor2ego, ``CAM_*.jpg``,
``LIDAR_TOP.bin``). In turn: a plain prediction of the stock configuration at full size with random
weights, one with the decomposition in production mode, one in check mode.

    python benchmarks/lmd_pcdet_bevfusion.py OPENPCDET KEYFRAME --level sensors
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bevfusion_report import checked, in_turns, normalise, score_deviation, timed, write
from PIL import Image
from torch import nn

from explain3d.adapters.common.spconv_compat import ensure_cpu_backward
from explain3d.adapters.pcdet.cpu import cpu_mode
from explain3d.adapters.pcdet.lmd import ShareDecomposer

CONFIG = 'cfgs/nuscenes_models/bevfusion.yaml'


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('openpcdet', type=Path, help='checkout of OpenPCDet')
    parser.add_argument('keyframe', type=Path, help='folder of one keyframe')
    parser.add_argument('--config', default=CONFIG, help='relative to tools/')
    parser.add_argument('--level', default='sensors', choices=['sensors', 'branches'])
    parser.add_argument('--modes', nargs='*', default=['production', 'check'])
    parser.add_argument('--blank', nargs='*', default=[], help='sensors to blank, in a last run')
    parser.add_argument('--score-thr', type=float, default=0.1)
    parser.add_argument('--rounds', type=int, default=0, help='timed, in turns; default none')
    parser.add_argument('--json', type=Path, help='where to save the figures')
    return parser.parse_args()


def build(name: str) -> tuple[nn.Module, Any]:
    """Returns the detector with random weights, and its configuration."""
    from easydict import EasyDict
    from pcdet.config import cfg_from_yaml_file
    from pcdet.datasets import DatasetTemplate
    from pcdet.models import build_network

    config = cfg_from_yaml_file(name, EasyDict(ROOT_DIR=Path(), LOCAL_RANK=0))
    config.MODEL.IMAGE_BACKBONE.pop('INIT_CFG', None)
    dataset = DatasetTemplate(
        config.DATA_CONFIG, config.CLASS_NAMES, training=False, root_path=Path()
    )
    torch.manual_seed(0)
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset)
    return model.eval(), config


def batch_of(model: nn.Module, config: Any, folder: Path) -> dict[str, Any]:
    """Returns the keyframe as a batch of one: the cloud by the data set's own steps."""
    steps = model.dataset.data_processor.data_processor_queue
    # These two need torchvision; the images are prepared below.
    steps[:] = [s for s in steps if not s.func.__name__.startswith('image_')]
    points = np.fromfile(folder / 'LIDAR_TOP.bin', np.float32).reshape(-1, 5)
    points[:, 4] = 0  # The time lag; the file has the ring.
    item = model.dataset.prepare_data({'points': points, 'frame_id': folder.name})
    batch = model.dataset.collate_batch([item])
    batch |= images_of(config.DATA_CONFIG, folder)
    return {
        key: torch.from_numpy(value).float()
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiu'
        else value
        for key, value in batch.items()
    }


def images_of(config: Any, folder: Path) -> dict[str, np.ndarray]:
    """Returns the images, resized, cropped and normalised, with what places them."""
    sensors = json.loads((folder / 'calib.json').read_text())['sensors']
    (step,) = (s for s in config.DATA_PROCESSOR if s.NAME == 'image_normalize')
    height, width = config.CAMERA_CONFIG.IMAGE.FINAL_DIM
    scale = float(np.mean(config.CAMERA_CONFIG.IMAGE.RESIZE_LIM_TEST))
    lidar2ego = np.asarray(sensors['LIDAR_TOP']['sensor2ego'])
    found: dict[str, list] = {}
    for name, sensor in sensors.items():
        if not name.startswith('CAM'):
            continue
        image = Image.open(folder / f'{name}.jpg')
        size = [int(side * scale) for side in image.size]
        left, top = (size[0] - width) // 2, size[1] - height
        image = image.resize(size).crop((left, top, left + width, top + height))
        values = (np.asarray(image, np.float32) / 255 - step.mean) / step.std
        intrinsics, moved = np.eye(4), np.diag([scale, scale, 1.0, 1.0])
        intrinsics[:3, :3] = sensor['K']
        moved[:2, 3] = -left, -top
        lidar2camera = np.linalg.inv(np.asarray(sensor['sensor2ego'])) @ lidar2ego
        for key, value in {
            'camera_imgs': values.transpose(2, 0, 1),
            'camera_intrinsics': intrinsics,
            'camera2lidar': np.linalg.inv(lidar2camera),
            'lidar2image': intrinsics @ lidar2camera,
            'img_aug_matrix': moved,
        }.items():
            found.setdefault(key, []).append(value)
    arrays = {key: np.stack(values)[None] for key, values in found.items()}
    return {**arrays, 'lidar_aug_matrix': np.eye(4)[None]}


def main() -> None:
    """Runs and prints."""
    args = parse_args()
    args.keyframe = args.keyframe.resolve()
    target = args.json.resolve() if args.json else None
    ensure_cpu_backward()
    sys.path.insert(0, str(args.openpcdet.resolve()))
    os.chdir(args.openpcdet / 'tools')
    with cpu_mode():
        write(target, measured(args))


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures."""
    model, config = build(args.config)
    batch = batch_of(model, config, args.keyframe)
    result: dict[str, Any] = dict(level=args.level, threads=torch.get_num_threads())
    result |= dict(points=len(batch['points']), voxels=len(batch['voxels']))
    normalise(model, lambda: model(dict(batch)))
    (plain, _), result['plain'] = timed(lambda: model(dict(batch)))
    print('plain', result['plain'], flush=True)
    for mode in args.modes:
        decomposer = ShareDecomposer(
            model, args.level, mode=mode, blank=(), score_thr=args.score_thr
        )
        with decomposer.predictions() as kept, decomposer.run() as run:
            (predicted, _), result[mode] = timed(lambda: model(dict(batch)))
        (shares,), _ = decomposer.read(run, kept, predicted, batch)
        same = all(torch.equal(plain[0][key], predicted[0][key]) for key in plain[0])
        result[mode] |= dict(boxes=len(shares.parts), boxes_unchanged=same)
        result[mode]['score_deviation'] = score_deviation(shares)
        print(mode, result[mode], flush=True)
        if mode == 'check':
            result |= checked(run, shares.parts)
    if args.rounds:
        decomposer = ShareDecomposer(model, args.level, blank=(), score_thr=args.score_thr)

        def decomposed() -> None:
            with decomposer.predictions(), decomposer.run():
                model(dict(batch))

        result['turns'] = in_turns(lambda: model(dict(batch)), decomposed, model.fuser, args.rounds)
    if args.blank:
        decomposer = ShareDecomposer(model, args.level, blank=args.blank, score_thr=args.score_thr)
        (shares,) = decomposer.decompose(batch)[1]
        for name, effect in shares.effects.items():
            there = int((~effect.raw[:, 0].isnan()).sum())
            print(f'without {name}: found {int(effect.found.sum())}, queries that stay {there}')
    return result


if __name__ == '__main__':
    main()
