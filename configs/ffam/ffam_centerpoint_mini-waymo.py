"""FFAM on a small CenterPoint and mini Waymo; there are no weights for it yet: train them."""

_base_ = [
    '../centerpoint/centerpoint_small_mini-waymo.py',
    '../_base_/explainers/ffam.py',
]
