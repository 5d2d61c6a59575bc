"""Small SimpleBEVs, scenes for them, and weights that depend on nothing but their names.

The golden arrays were recorded with the authors' code on these weights and scenes; RandomState's
stream is fixed by NumPy's compatibility policy.
"""

import zlib

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from explain3d.locations import config_path

# The authors' decoder takes multiples of 8 only.
GRID = dict(x=(-32, 32, 32), y=(-4, 6, 4), z=(-24, 24, 24))
IMAGE = (64, 96)
#: As many as the authors' metadata have, which is written into their code.
FEATURES = tuple(f'feature_{index}' for index in range(16))
FIELDS = ('x', 'y', 'z', *FEATURES)
YAWS = (0, 55, -55, 180, -110, 110)


def random(seed: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(seed.encode()))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of a parameter or buffer of the authors' model, by their name and its shape."""
    draw = random(name)
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if not shape:
        return np.asarray(0.1)
    if len(shape) == 4:
        return draw.uniform(-1, 1, shape) * np.sqrt(3 / np.prod(shape[1:]))
    scale = name.endswith(('running_var', 'weight'))
    return draw.uniform(0.5, 1.5, shape) if scale else draw.uniform(-0.2, 0.2, shape)


def calibration(sample: int) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics and poses (6, 4, 4) of six cameras around the origin, slightly tilted."""
    cam2img, cam2ref = np.tile(np.eye(4), (2, 6, 1, 1))
    for index, yaw in enumerate(np.deg2rad(YAWS)):
        height, width = IMAGE
        cam2img[index, 0, [0, 2]] = 70 + index, width / 2 - 1.3
        cam2img[index, 1, [1, 2]] = 71 + sample, height / 2 + 0.7
        tilt, (s, c) = 0.02 * index, (np.sin(yaw + 0.05), np.cos(yaw + 0.05))
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        nod = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
        cam2ref[index, :3, :3] = turn @ nod
        cam2ref[index, :3, 3] = 0.6 * s, 0.1 * sample, 0.6 * c
    return cam2img, cam2ref


def points(sample: int, count: int = 250) -> np.ndarray:
    """Points (P, 19), at most one in a voxel: which of several the authors keep is random."""
    cloud = random(f'points {sample}').standard_normal((count, len(FIELDS))) * 3
    cloud[:, :3] *= [5, 0.7, 5]
    low, size = (
        np.array([f(GRID[axis]) for axis in 'xyz'])
        for f in (lambda a: a[0], lambda a: (a[1] - a[0]) / a[2])
    )
    _, first = np.unique(np.floor((cloud[:, :3] - low) / size), axis=0, return_index=True)
    return cloud[np.sort(first)]


def images(sample: int) -> np.ndarray:
    """Six images (6, 3, H, W), uint8, BGR."""
    return random(f'images {sample}').randint(0, 256, (6, 3, *IMAGE)).astype(np.uint8)


def batch(samples=(0,), sensors=('radar', 'points'), truth: dict = GRID) -> dict:
    """What MMEngine's pseudo_collate makes of samples."""
    from mmdet3d.structures import Det3DDataSample

    inputs = dict(img=[torch.from_numpy(images(index)) for index in samples])
    for name in sensors:
        inputs[name] = [torch.from_numpy(points(index)).float() for index in samples]
    data_samples = []
    for index in samples:
        cam2img, cam2ref = calibration(index)
        sample = Det3DDataSample(
            metainfo=dict(
                cam2img=cam2img, cam2ref=cam2ref, radar_fields=FIELDS, lidar_fields=FIELDS
            )
        )
        shape, draw = (truth['z'][2], truth['x'][2]), random(f'truth {index}')
        seg = torch.from_numpy(draw.uniform(size=(1, *shape)) < 0.1)
        valid = torch.from_numpy(draw.uniform(size=(1, *shape)) < 0.9)
        sample.gt_bev_seg = PixelData(data=seg.byte(), valid=valid)
        sample.gt_bev_center = PixelData(data=torch.from_numpy(draw.uniform(size=(1, *shape))))
        sample.gt_bev_offset = PixelData(data=torch.from_numpy(draw.normal(size=(2, *shape))))
        data_samples.append(sample)
    return dict(inputs=inputs, data_samples=data_samples)


RASTERIZERS = dict(
    camera=None,
    radar=dict(radar=dict(occupancy=False, features=FEATURES)),
    radar_occupancy=dict(radar=dict(grid=dict(GRID, y=(-4, 6, 1)))),
    lidar=dict(lidar=dict()),
    radar_lidar=dict(radar=dict(occupancy=False, features=FEATURES), lidar=dict()),
)


def build(config: dict):
    """Builds a model through the registry as a runner does."""
    from mmdet3d.registry import MODELS

    init_default_scope('mmdet3d')
    return MODELS.build(config)


def authors_model(sensors: str):
    """The authors' architecture with a ResNet-50, 16 channels and a small grid."""
    config = Config.fromfile(config_path('_base_/models/simplebev_r101.py')).model
    config.grid, config.rasterizers = GRID, RASTERIZERS[sensors]
    config.img_encoder.backbone.depth = 50
    config.img_encoder.out_channels = config.fuser.out_channels = 16
    return build(config)


def small_model(sensors: str = 'radar_lidar', **changes):
    """The narrow model, narrower, with weights by MMEngine's recipe and a fixed seed."""
    config = Config.fromfile(config_path('_base_/models/simplebev_small.py')).model
    config.grid, config.rasterizers = GRID, RASTERIZERS[sensors]
    config.img_encoder.backbone.base_channels = 8
    config.img_encoder.in_channels = (16, 32)
    config.img_encoder.mid_channels = config.img_encoder.out_channels = 8
    config.fuser.out_channels = config.decoder.base_channels = 8
    for name, value in changes.items():
        config[name] = value
    torch.manual_seed(0)
    return build(config)
