"""Networks from configurations."""

import numpy as np
import torch

from .detectors import build_detector

_STAY = ('frame_id', 'metadata', 'calib')


def build_network(model_cfg, num_class, dataset):
    return build_detector(model_cfg=model_cfg, num_class=num_class, dataset=dataset)


def load_data_to_gpu(batch_dict):
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for key, value in batch_dict.items():
        if isinstance(value, np.ndarray) and key not in _STAY:
            kind = torch.int32 if key == 'image_shape' else torch.float32
            batch_dict[key] = torch.from_numpy(value).to(device, kind)
