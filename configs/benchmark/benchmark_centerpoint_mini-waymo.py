"""The benchmark on the shipped CenterPoint and mini Waymo, found through EXPLAIN3D_MINI_WAYMO."""

_base_ = [
    '../centerpoint/centerpoint_small_mini-waymo.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/centerpoint_small_mini-waymo.pth'
# tools/fit_occam_density.py configs/benchmark/benchmark_centerpoint_mini-waymo.py
# 40 frames, 972316 voxels; 10% of the points are kept.
benchmark = dict(methods={'OccAM': dict(density=[0.01, 0.00604, -2.27e-05], bounds=[0.02, 0.95])})
