"""Tiny detectors of OpenPCDet, built by whichever host the tests run on, and clouds for them."""

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from explain3d.adapters.pcdet.config import read_config

ROOT = Path(__file__).parents[3]
SMALL = ROOT / 'configs' / 'pcdet'
RANGE = [0, -3.2, -3, 6.4, 3.2, 1]


def settings(name):
    """The small detector of that name, on a range of 64 x 64 voxels, reporting many boxes."""
    config = read_config(SMALL / f'{name}_small_miniworld.yaml')
    config['DATA_CONFIG']['POINT_CLOUD_RANGE'] = RANGE
    model = config['MODEL']
    model['BACKBONE_2D'].update(LAYER_NUMS=[1, 1], NUM_FILTERS=[8, 16])
    model['POST_PROCESSING']['SCORE_THRESH'] = 0.0
    own = model['DENSE_HEAD'].get('POST_PROCESSING', {})
    for part in (model['POST_PROCESSING'], own):
        if 'NMS_CONFIG' in part:
            part['NMS_CONFIG']['NMS_POST_MAXSIZE'] = 12
    if own:
        own.update(SCORE_THRESH=0.0, MAX_OBJ_PER_SAMPLE=30)
        own['POST_CENTER_LIMIT_RANGE'] = [-100.0, -100.0, -10.0, 100.0, 100.0, 10.0]
    return config


def build(name, change=None):
    """Returns a detector with random weights whose activations are of order 1, in eval mode."""
    from pcdet.config import EasyDict
    from pcdet.datasets.dataset import DatasetTemplate
    from pcdet.models import build_network

    config = settings(name)
    if change is not None:
        change(config)
    config = EasyDict(copy.deepcopy(config))
    dataset = DatasetTemplate(
        config.DATA_CONFIG, config.CLASS_NAMES, training=False, root_path=Path('.')
    )
    torch.manual_seed(0)
    model = build_network(config.MODEL, len(config.CLASS_NAMES), dataset).eval()
    calibrate(model)
    return model


def calibrate(model):
    """Sets the statistics of the normalisations to those of a cloud."""
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(batch(model, cloud(9)))
    for norm in norms:
        norm.running_var.clamp_(min=1e-2)
        norm.eval()


def cloud(seed, n=600):
    """(n, 4) points: two clumps on sparse ground."""
    generator = np.random.default_rng(seed)
    low, high = np.array(RANGE[:3]), np.array(RANGE[3:])
    points = generator.random((n, 4)).astype(np.float32)
    points[:, :3] = low + (high - low) * points[:, :3]
    third = n // 3
    for i, center in enumerate(([2, -1, -1], [4.5, 1.2, -1.2])):
        rows = slice(i * third, (i + 1) * third)
        points[rows, :3] = center + generator.normal(size=(third, 3)) * [0.5, 0.3, 0.3]
    return points


def batch(model, *clouds, **more):
    """OpenPCDet's batch of these clouds on the model's device."""
    dataset = model.dataset
    names = [f'{i:06d}' for i in range(len(clouds))]
    items = [
        dataset.prepare_data({'points': points.copy(), 'frame_id': name})
        for points, name in zip(clouds, names, strict=True)
    ]
    made = dataset.collate_batch(items)
    device = next(model.parameters()).device
    for key, value in made.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
            made[key] = torch.from_numpy(value).float().to(device)
    return {**made, **more}


def truth(model, frames):
    """(frames, 3, 8) annotated boxes, labels last, filled up with zeros."""
    boxes = torch.zeros(frames, 3, 8, device=next(model.parameters()).device)
    boxes[:, 0] = torch.tensor([2, -1, -1, 3.9, 1.6, 1.5, 0.1, 3])
    boxes[:, 1] = torch.tensor([4.5, 1.2, -1.2, 0.8, 0.6, 1.7, -1.0, 1])
    return boxes
