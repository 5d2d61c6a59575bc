"""The benchmark on real KITTI frames, found through EXPLAIN3D_KITTI_MINI: the validation frames.

The training frames, which the weights have seen, are a table of their own:
``--cfg-options test_dataloader.dataset.ann_file=kitti_infos_train.pkl``.
"""

_base_ = [
    '../second/second_small_kitti-mini.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/kitti-mini/second_small_kitti-mini.pth'
# tools/fit_occam_density.py configs/benchmark/benchmark_second_kitti-mini.py
# 10 frames, 60076 voxels; 8% of the points are kept.
benchmark = dict(
    methods={'OccAM': dict(density=[-0.0378, 0.00974, -8.75e-05], bounds=[0.02, 0.95])}
)
