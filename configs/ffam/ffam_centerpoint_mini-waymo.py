"""FFAM on the shipped CenterPoint and mini Waymo's validation segments."""

_base_ = [
    '../centerpoint/centerpoint_small_mini-waymo.py',
    '../_base_/explainers/ffam.py',
]
load_from = 'checkpoints/centerpoint_small_mini-waymo.pth'
