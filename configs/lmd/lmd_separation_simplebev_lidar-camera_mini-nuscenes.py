"""How well LMD separates camera and LiDAR: Eq. 14-15 on the mini nuScenes, all rules, one table.

Every keyframe and the paper's twelve partners. A part of it, in minutes:
--cfg-options test_cfg.samples=24 test_cfg.shifts=3
"""

_base_ = [
    '../simplebev/simplebev_small_lidar-camera_mini-nuscenes.py',
    '../_base_/explainers/lmd_separation.py',
]
load_from = 'checkpoints/simplebev_small_lidar-camera_mini-nuscenes.pth'
test_cfg = {{_base_.lmd_separation}}
