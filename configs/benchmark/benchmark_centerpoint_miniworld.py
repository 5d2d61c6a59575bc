"""The benchmark of explanation methods on the shipped CenterPoint and the mini world."""

_base_ = [
    '../centerpoint/centerpoint_small_miniworld.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/centerpoint_small_miniworld.pth'
