"""LMD on SimpleBEV of the paper's size with camera and radar, on nuScenes."""

_base_ = [
    '../simplebev/simplebev_r101_radar-camera_nuscenes.py',
    '../_base_/explainers/lmd.py',
]
