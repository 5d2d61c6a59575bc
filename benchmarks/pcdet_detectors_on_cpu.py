"""Which stock detectors of OpenPCDet run on this machine's CPU, and give gradients?

Builds each stock configuration at full size with random weights in the CPU mode, sets its batch
normalisations to one point cloud's statistics, sends that cloud through it, and takes the gradient
of its boxes' scores, summed, with respect to the features of the 3D backbone at stride 4, or of the
pillars where there is no 3D backbone. Where the scores have no graph (SECOND-IoU's are detached),
it is that of the dense head's logits. Score thresholds are set to 0: random weights are sure of
nothing. Prints the CPU seconds of a prediction and of a prediction with one gradient, the number of
boxes, how many of the three best scores have a gradient of their own, and of backbone rows whose
gradient is not zero, or the error.

    .venv/bin/python benchmarks/pcdet_detectors_on_cpu.py OPENPCDET [CLOUD.bin] [--configs ...]
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explain3d.adapters.common.spconv_compat import (
    differentiable_sparse_convolutions,
    ensure_cpu_backward,
)
from explain3d.adapters.pcdet.cpu import cpu_mode

CONFIGS = [
    'kitti_models/second.yaml',
    'kitti_models/second_iou.yaml',
    'kitti_models/pointpillar.yaml',
    'kitti_models/pv_rcnn.yaml',
    'kitti_models/pv_rcnn_plusplus_reproduced_by_community.yaml',
    'kitti_models/voxel_rcnn_car.yaml',
    'kitti_models/PartA2.yaml',
    'kitti_models/PartA2_free.yaml',
    'kitti_models/pillarnet.yaml',
    'waymo_models/second.yaml',
    'waymo_models/centerpoint.yaml',
    'waymo_models/pv_rcnn.yaml',
    'waymo_models/pv_rcnn_plusplus.yaml',
    'waymo_models/voxel_rcnn_with_centerhead_dyn_voxel.yaml',
    'waymo_models/PartA2.yaml',
    'waymo_models/pillarnet.yaml',
    'waymo_models/voxelnext_ioubranch_large.yaml',
    'waymo_models/dsvt_pillar.yaml',
    'nuscenes_models/cbgs_voxel01_res3d_centerpoint.yaml',
    'nuscenes_models/cbgs_pillar0075_res2d_centerpoint.yaml',
    'nuscenes_models/cbgs_voxel0075_voxelnext.yaml',
    'nuscenes_models/transfusion_lidar.yaml',
]


def read(name: str) -> Any:
    """Returns a stock configuration with all its score thresholds at 0."""
    from easydict import EasyDict
    from pcdet.config import cfg_from_yaml_file

    config = cfg_from_yaml_file(f'cfgs/{name}', EasyDict(ROOT_DIR=Path(), LOCAL_RANK=0))
    _without_thresholds(config.MODEL)
    return config


def _without_thresholds(section: Any) -> None:
    for key, value in section.items():
        if key == 'SCORE_THRESH':
            section[key] = [0.0] * len(value) if isinstance(value, list) else 0.0
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _without_thresholds(part)


def batch_of(dataset: Any, cloud: np.ndarray) -> dict:
    """Returns the cloud as a batch of one frame, made by the data set's own pipeline."""
    from pcdet.models import load_data_to_gpu

    columns = len(dataset.dataset_cfg.POINT_FEATURE_ENCODING.src_feature_list)
    points = np.zeros((len(cloud), columns), np.float32)
    points[:, :4] = cloud[:, :4]
    batch = dataset.collate_batch([dataset.prepare_data({'points': points, 'frame_id': '0'})])
    load_data_to_gpu(batch)
    return batch


def leaf_at_stride_4(model: nn.Module, leaves: list[Tensor]) -> Any:
    """Makes the backbone's features at stride 4, or the pillars', a leaf that is put in a list."""

    def sparse(module: nn.Module, args: tuple, output: Any) -> Any:
        tensor = output if hasattr(output, 'features') else output[0]
        leaves.append(tensor.features.detach().requires_grad_())
        return tensor.replace_feature(leaves[-1])

    def pillars(module: nn.Module, args: tuple, output: dict) -> dict:
        leaves.append(output['pillar_features'].detach().requires_grad_())
        # Encoders that fill both names give both the same features: DSVT reads the second.
        for name in {'pillar_features', 'voxel_features'} & set(output):
            if output[name].shape == leaves[-1].shape:
                output[name] = leaves[-1]
        return output

    stage = getattr(model.backbone_3d, 'conv3', None)
    if stage is not None:
        return stage.register_forward_hook(sparse)
    return model.vfe.register_forward_hook(pillars)


def calibrate(model: nn.Module, batch: dict) -> None:
    """Sets the statistics of the batch normalisations to those of one batch.

    With those that they start with, activations fade from layer to layer until all scores are the
    same number, and two-stage detectors propose boxes where there are no points.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


def measure(name: str, cloud: np.ndarray) -> str:
    """Returns one detector's row of the table."""
    from pcdet.datasets import DatasetTemplate
    from pcdet.models import build_network

    config = read(name)
    dataset = DatasetTemplate(
        config.DATA_CONFIG, config.CLASS_NAMES, training=False, root_path=Path()
    )
    dataset.data_path = Path()
    torch.manual_seed(0)
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset).cuda().eval()
    calibrate(model, batch_of(dataset, cloud))
    start = time.process_time()
    with torch.no_grad():
        boxes = model(batch_of(dataset, cloud))[0][0]['pred_boxes']
    predict = time.process_time() - start

    leaves: list[Tensor] = []
    handle = leaf_at_stride_4(model, leaves)
    start = time.process_time()
    with torch.enable_grad(), differentiable_sparse_convolutions(model):
        scores = model(batch_of(dataset, cloud))[0][0]['pred_scores']
        (gradient,) = torch.autograd.grad(
            scores.sum(), leaves[0], retain_graph=True, allow_unused=True
        )
        explain = time.process_time() - start
        of = 'scores'
        if gradient is None:
            of, scores = 'logits', model.dense_head.forward_ret_dict['cls_preds']
            (gradient,) = torch.autograd.grad(scores.sum(), leaves[0], retain_graph=True)
        own = sum(
            bool(torch.autograd.grad(score, leaves[0], retain_graph=True)[0].any())
            for score in scores.flatten().topk(min(3, scores.numel())).values
        )
    handle.remove()
    rows = int((gradient != 0).flatten(1).any(dim=1).sum())
    finite = 'finite' if bool(gradient.isfinite().all()) else 'NOT FINITE'
    return (
        f'{predict:7.1f}  {explain:13.1f}  {len(boxes):5d}  {own:12d}  {of}: '
        f'{rows} of {len(gradient)}, {finite}, largest {float(gradient.abs().max()):.2e}'
    )


def read_cloud(path: Path) -> np.ndarray:
    """Returns the points of a file in KITTI's format."""
    return np.fromfile(path, np.float32).reshape(-1, 4)


def made_up_cloud() -> np.ndarray:
    """Returns a ground plane and some boxes upon it, seen all around."""
    rng = np.random.default_rng(0)
    ground = rng.uniform((-70, -70, -1.75, 0), (70, 70, -1.65, 1), (60000, 4))
    centres = rng.uniform((-60, -60, -0.9, 0), (60, 60, -0.8, 0), (60, 1, 4))
    objects = centres + rng.uniform((-2, -1, -0.8, 0), (2, 1, 0.8, 1), (60, 300, 4))
    return np.concatenate([ground, objects.reshape(-1, 4)]).astype(np.float32)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('openpcdet', type=Path, help='checkout of OpenPCDet')
    parser.add_argument('cloud', nargs='?', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('--configs', nargs='*', default=CONFIGS)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    ensure_cpu_backward()
    cloud = read_cloud(args.cloud) if args.cloud else made_up_cloud()
    sys.path.insert(0, str(args.openpcdet.resolve()))
    os.chdir(args.openpcdet / 'tools')
    print('predict  with gradient  boxes  of best three  backbone rows  (CPU seconds)')
    with cpu_mode():
        for name in args.configs:
            try:
                row = measure(name, cloud)
            except Exception as error:  # What does not run is a row of the table.
                row = f'{type(error).__name__}: {str(error).splitlines()[0][:120]}'
                if os.environ.get('EXPLAIN3D_DEBUG'):
                    raise
            print(f'{name}\n    {row}', flush=True)


if __name__ == '__main__':
    main()
