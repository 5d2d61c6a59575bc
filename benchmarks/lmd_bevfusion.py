r"""LMD of MMDetection3D's BEVFusion: conservation at every layer and at the boxes, time and memory.

Takes the configuration of a checkout of MMDetection3D, whose folder has to be importable, and one
nuScenes keyframe as plain files (``calib.json`` with K and sensor2ego, ``CAM_*.jpg``,
``LIDAR_TOP.bin``). In turn: a plain prediction, one with the decomposition in production mode, one
in check mode. Where the two compiled extensions of the project are missing, ``--import`` names a
module of yours that puts others into ``sys.modules``; its time then counts.

    PYTHONPATH=MMDETECTION3D python benchmarks/lmd_bevfusion.py \
        MMDETECTION3D/projects/BEVFusion/configs/bevfusion_lidar-cam_voxel0075_second_secfpn_8xb4-cyclic-20e_nus-3d.py \
        KEYFRAME --level sensors
"""  # noqa: E501

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bevfusion_report import checked, normalise, score_deviation, timed, write
from mmdet3d.registry import MODELS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from explain3d.adapters.mmdet3d.lmd.batch import copied
from explain3d.adapters.mmdet3d.lmd.share_decomposer import ShareDecomposer

#: The camera's branch, and two halves of the cloud from the voxels on, through the sparse encoder.
POINTS = [
    dict(module='fusion_layer', path='0.0', modality='camera'),
    dict(
        module='pts_voxel_layer', at='output', path='0', dim=-1, channel=0,
        intervals=dict(behind=(None, 0.0), ahead=(0.0, None)),
    ),
]  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='of BEVFusion, with camera and LiDAR')
    parser.add_argument('keyframe', type=Path, help='folder of one keyframe')
    parser.add_argument('--checkpoint', help='default: random weights')
    parser.add_argument('--level', default='sensors', choices=['sensors', 'branches', 'points'])
    parser.add_argument('--modes', nargs='*', default=['production', 'check'])
    parser.add_argument('--score-thr', type=float, default=0.1)
    parser.add_argument('--import', dest='modules', nargs='*', default=[], metavar='MODULE')
    parser.add_argument('--device', default='cuda:0' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--json', type=Path, help='where to save the figures')
    return parser.parse_args()


def build(config: Config, checkpoint: str | None, device: str) -> nn.Module:
    """Returns the detector with the checkpoint's weights, or random ones."""
    init_default_scope('mmdet3d')
    config.model.img_backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    if checkpoint:
        load_checkpoint(model, checkpoint, map_location='cpu')
    return model.to(device).eval()


def batch_of(config: Config, folder: Path) -> dict[str, Any]:
    """Returns the keyframe as a batch of one, by the configuration's own test pipeline."""
    sensors = json.loads((folder / 'calib.json').read_text())['sensors']
    lidar2ego = np.asarray(sensors['LIDAR_TOP']['sensor2ego'])
    images = {
        name: dict(
            img_path=str(folder / f'{name}.jpg'),
            cam2img=sensor['K'],
            lidar2cam=np.linalg.inv(np.asarray(sensor['sensor2ego'])) @ lidar2ego,
        )
        for name, sensor in sensors.items()
        if name.startswith('CAM')
    }
    points = dict(lidar_path=str(folder / 'LIDAR_TOP.bin'), num_pts_feats=5)
    info = dict(
        lidar_points=points, images=images, timestamp=0.0, sample_idx=0,
        box_type_3d=LiDARInstance3DBoxes,
    )  # fmt: skip
    return pseudo_collate([Compose(config.test_pipeline)(info)])


def main() -> None:
    """Runs and prints."""
    args = parse_args()
    for module in args.modules:
        importlib.import_module(module)
    config = Config.fromfile(args.config)
    model = build(config, args.checkpoint, args.device)
    batch = batch_of(config, args.keyframe)
    result: dict[str, Any] = dict(level=args.level, threads=torch.get_num_threads())
    result['points'] = len(batch['inputs']['points'][0])
    if args.checkpoint is None:
        normalise(model, lambda: model.test_step(copied(batch)))
    plain, result['plain'] = timed(lambda: model.test_step(copied(batch)))
    print('plain', result['plain'], flush=True)
    for mode in args.modes:
        seeds = POINTS if args.level == 'points' else args.level
        decomposer = ShareDecomposer(model, seeds, mode=mode, blank=(), score_thr=args.score_thr)
        with decomposer.run() as run:
            samples, result[mode] = timed(lambda: model.test_step(copied(batch)))
        (shares,), _ = decomposer.read(run, samples, decomposer.frames(batch))
        before, after = (s[0].pred_instances_3d.bboxes_3d.tensor for s in (plain, samples))
        result[mode] |= dict(boxes=len(shares.parts), boxes_unchanged=torch.equal(before, after))
        result[mode]['score_deviation'] = score_deviation(shares)
        print(mode, result[mode], flush=True)
        if mode == 'check':
            result |= checked(run, shares.parts)
    write(args.json, result)


if __name__ == '__main__':
    main()
