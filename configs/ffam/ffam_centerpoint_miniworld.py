"""FFAM on the shipped CenterPoint and the mini world's validation frames."""

_base_ = [
    '../centerpoint/centerpoint_small_miniworld.py',
    '../_base_/explainers/ffam.py',
]
load_from = 'checkpoints/centerpoint_small_miniworld.pth'
