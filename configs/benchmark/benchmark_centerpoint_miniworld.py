"""The benchmark of explanation methods on the shipped CenterPoint and the mini world."""

_base_ = [
    '../centerpoint/centerpoint_small_miniworld.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/centerpoint_small_miniworld.pth'
# As for SECOND, whose data set this is.
benchmark = dict(
    methods={'OccAM': dict(density=[-0.0221, 0.00826, -5.09e-05], bounds=[0.02, 0.95])}
)
