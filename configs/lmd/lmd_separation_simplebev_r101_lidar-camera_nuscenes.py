"""How well LMD separates camera and LiDAR: Eq. 14-15 with the paper's pairs, on nuScenes."""

_base_ = [
    '../simplebev/simplebev_r101_lidar-camera_nuscenes.py',
    '../_base_/explainers/lmd_separation.py',
]
test_cfg = {{_base_.lmd_separation}}
