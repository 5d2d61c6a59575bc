"""LMD on SimpleBEV of the paper's size with camera, radar and LiDAR, on nuScenes."""

_base_ = [
    '../simplebev/simplebev_r101_radar-lidar-camera_nuscenes.py',
    '../_base_/explainers/lmd.py',
]
