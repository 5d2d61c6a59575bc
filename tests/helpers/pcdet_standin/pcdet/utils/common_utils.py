"""Helpers that the runner and the models share."""

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist


def limit_period(val, offset=0.5, period=np.pi):
    turns = val / period + offset
    return val - (torch.floor(turns) if torch.is_tensor(val) else np.floor(turns)) * period


def rotate_points_along_z(points, angle):
    """(B, N, 3 + C) turned by (B,) from x towards y."""
    x, y = points[..., 0], points[..., 1]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    turned = torch.stack([x * cos - y * sin, x * sin + y * cos], -1)
    return torch.cat([turned, points[..., 2:]], -1)


def create_logger(log_file=None, rank=0, log_level=logging.INFO):
    logger = logging.getLogger(__name__)
    logger.setLevel(log_level if rank == 0 else logging.ERROR)
    handlers = [logging.StreamHandler()]
    if log_file is not None:
        handlers.append(logging.FileHandler(log_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter('%(asctime)s  %(levelname)5s  %(message)s'))
        logger.addHandler(handler)
    logger.propagate = False
    return logger


def get_dist_info(return_gpu_per_machine=False):
    on = dist.is_available() and dist.is_initialized()
    info = (dist.get_rank(), dist.get_world_size()) if on else (0, 1)
    return (*info, torch.cuda.device_count()) if return_gpu_per_machine else info


def init_dist_pytorch(tcp_port, local_rank, backend='nccl'):
    devices = torch.cuda.device_count()
    torch.cuda.set_device(local_rank % devices)
    dist.init_process_group(backend=backend)
    return devices, dist.get_rank()


def merge_results_dist(result_part, size, tmpdir):
    rank, world_size = get_dist_info()
    folder = Path(tmpdir)
    folder.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    (folder / f'result_part_{rank}.pkl').write_bytes(pickle.dumps(result_part))
    dist.barrier()
    if rank != 0:
        return None
    parts = [
        pickle.loads((folder / f'result_part_{i}.pkl').read_bytes()) for i in range(world_size)
    ]
    shutil.rmtree(folder)
    return [item for group in zip(*parts, strict=False) for item in group][:size]


class AverageMeter:
    """A running mean."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count
