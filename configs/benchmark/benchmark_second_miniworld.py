"""The benchmark of explanation methods on the shipped SECOND and the mini world."""

_base_ = [
    '../second/second_small_miniworld.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/second_small_miniworld.pth'
# tools/fit_occam_density.py configs/benchmark/benchmark_second_miniworld.py --frames 8
# 8 frames, 41847 voxels; 10% of the points are kept.
benchmark = dict(
    methods={'OccAM': dict(density=[-0.0221, 0.00826, -5.09e-05], bounds=[0.02, 0.95])}
)
