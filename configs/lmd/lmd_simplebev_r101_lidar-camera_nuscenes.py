"""LMD on SimpleBEV of the paper's size with camera and LiDAR, on nuScenes."""

_base_ = [
    '../simplebev/simplebev_r101_lidar-camera_nuscenes.py',
    '../_base_/explainers/lmd.py',
]
