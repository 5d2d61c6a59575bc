"""The benchmark on the shipped CenterPoint and mini Waymo, found through EXPLAIN3D_MINI_WAYMO."""

_base_ = [
    '../centerpoint/centerpoint_small_mini-waymo.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/centerpoint_small_mini-waymo.pth'
# tools/fit_occam_density.py configs/benchmark/benchmark_centerpoint_mini-waymo.py
# 10 frames, 204081 voxels; 32% of the points are kept.
benchmark = dict(
    methods={'OccAM': dict(density=[-0.04077, 0.02994, -0.0002076], bounds=[0.05, 0.95])}
)
