"""FFAM on a voxel CenterPoint and Waymo."""

_base_ = [
    '../centerpoint/centerpoint_voxel01_waymo.py',
    '../_base_/explainers/ffam.py',
]
