"""The benchmark of explanation methods on the shipped SECOND and the mini world."""

_base_ = [
    '../second/second_small_miniworld.py',
    '../_base_/explainers/benchmark.py',
]
load_from = 'checkpoints/second_small_miniworld.pth'
