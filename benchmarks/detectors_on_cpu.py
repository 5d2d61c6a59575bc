"""Which stock detectors of MMDetection3D run and can be explained on this machine's CPU?

Builds each stock configuration at full size with random weights, sends one point cloud through it,
and explains the score of one of its 20 best detections at stride 4, or at the bird's-eye-view map
where there is no such layer. Prints the CPU seconds of the prediction, the second pass and one
gradient, or the error.

    .venv/bin/python benchmarks/detectors_on_cpu.py CLOUD.bin [CONFIG ...]
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import mmdet3d
import numpy as np
import torch
from mmdet3d.apis.inference import convert_SyncBN
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from explain3d.adapters.mmdet3d.frames import detections_of, one_frame
from explain3d.adapters.mmdet3d.layers import layers
from explain3d.adapters.mmdet3d.tracer import Tracer

CONFIGS = [
    'second/second_hv_secfpn_8xb6-80e_kitti-3d-3class.py',
    'pointpillars/pointpillars_hv_secfpn_8xb6-160e_kitti-3d-3class.py',
    'centerpoint/centerpoint_voxel01_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
    'centerpoint/centerpoint_voxel01_second_secfpn_head-dcn_8xb4-cyclic-20e_nus-3d.py',
    'centerpoint/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
    'sassd/sassd_8xb6-80e_kitti-3d-3class.py',
    'ssn/ssn_hv_secfpn_sbn-all_16xb2-2x_nus-3d.py',
    'pv_rcnn/pv_rcnn_8xb2-80e_kitti-3d-3class.py',
    'parta2/parta2_hv_secfpn_8xb2-cyclic-80e_kitti-3d-3class.py',
]


def build(name: str) -> tuple[nn.Module, int]:
    """Returns a stock detector with random weights, and the columns of its points."""
    config = Config.fromfile(Path(mmdet3d.__file__).parent / '.mim' / 'configs' / name)
    convert_SyncBN(config.model)
    torch.manual_seed(0)
    columns = config.test_pipeline[0].use_dim
    model = MODELS.build(config.model).eval()
    return model, columns if isinstance(columns, int) else len(columns)


def batch_of(cloud: np.ndarray, columns: int, model: nn.Module) -> dict:
    """Returns the points within the detector's range as a batch of one frame."""
    low, high = np.split(np.array(model.data_preprocessor.voxel_layer.point_cloud_range), 2)
    inside = cloud[((cloud[:, :3] > low) & (cloud[:, :3] < high)).all(1)]
    points = np.zeros((len(inside), columns), np.float32)
    points[:, : min(4, columns)] = inside[:, : min(4, columns)]
    sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes))
    return dict(inputs=dict(points=[torch.as_tensor(points)]), data_samples=[sample])


def measure(name: str, cloud: np.ndarray) -> str:
    """Returns one detector's row of the table."""
    model, columns = build(name)
    marks = []
    with torch.no_grad():
        data = model.data_preprocessor(batch_of(cloud, columns, model), False)
        frame = one_frame(data['inputs'], 0, 1)
        marks.append(time.process_time())
        sample = model(**data, mode='predict')[0]
        marks.append(time.process_time())
        detections = detections_of(sample, (), 'cloud')[:20]
        aliases = {alias for layer in layers(model) for alias in layer.aliases}
        tracer = Tracer(model, 'stride4' if 'stride4' in aliases else 'bev')
        marks.append(time.process_time())
        trace = tracer.trace(model.predict, frame, sample, detections, 'cloud')
        marks.append(time.process_time())
    torch.autograd.grad(trace.attributes['score'][0], trace.leaf)
    marks.append(time.process_time())
    predict, second, gradient = marks[1] - marks[0], marks[3] - marks[2], marks[4] - marks[3]
    return f'{predict:7.1f}  {second:11.1f}  {gradient:8.1f}  {tracer.layer.name}'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('cloud', type=Path, help='float32 x, y, z, intensity')
    parser.add_argument('configs', nargs='*', default=CONFIGS)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    init_default_scope('mmdet3d')
    cloud = np.fromfile(args.cloud, np.float32).reshape(-1, 4)
    print('predict  second pass  gradient  layer  (CPU seconds)')
    for name in args.configs:
        try:
            row = measure(name, cloud)
        except Exception as error:  # What does not run is a row of the table.
            row = f'{type(error).__name__}: {str(error).splitlines()[0][:120]}'
        print(f'{name}\n    {row}', flush=True)


if __name__ == '__main__':
    main()
