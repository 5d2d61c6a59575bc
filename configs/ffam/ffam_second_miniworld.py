"""FFAM on the shipped SECOND and the mini world's validation frames."""

_base_ = [
    '../second/second_small_miniworld.py',
    '../_base_/explainers/ffam.py',
]
load_from = 'checkpoints/second_small_miniworld.pth'
