"""Data sets by name, and their loader."""

from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler as _DistributedSampler

from ..utils import common_utils
from .dataset import DatasetTemplate
from .kitti.kitti_dataset import KittiDataset

__all__ = {'DatasetTemplate': DatasetTemplate, 'KittiDataset': KittiDataset}  # noqa: PLE0605


def build_dataloader(
    dataset_cfg, class_names, batch_size, dist, root_path=None, workers=4, seed=None, logger=None,
    training=True, merge_all_iters_to_one_epoch=False, total_epochs=0,
):  # fmt: skip
    dataset = __all__[dataset_cfg.DATASET](
        dataset_cfg=dataset_cfg, class_names=class_names, root_path=root_path, training=training,
        logger=logger,
    )  # fmt: skip
    sampler = None
    if dist:
        rank, world_size = common_utils.get_dist_info()
        sampler = _DistributedSampler(dataset, world_size, rank, shuffle=training)
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, sampler=sampler,
        shuffle=sampler is None and training, collate_fn=dataset.collate_batch,
    )  # fmt: skip
    return dataset, loader, sampler
