"""The benchmark of explanation methods on the shipped CenterPoint and the mini world."""

_base_ = [
    '../centerpoint/centerpoint_small_miniworld.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/centerpoint_small_miniworld.pth'
# As for SECOND, whose data set this is.
benchmark = dict(
    methods={'OccAM': dict(density=[-0.07991, 0.02956, -0.0001829], bounds=[0.05, 0.95])}
)
