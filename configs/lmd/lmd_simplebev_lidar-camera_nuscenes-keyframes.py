"""LMD on the real nuScenes keyframes that have LiDAR (EXPLAIN3D_REAL_DATA)."""

_base_ = [
    '../simplebev/simplebev_small_lidar-camera_nuscenes-keyframes.py',
    '../_base_/explainers/lmd.py',
]
_base_.custom_hooks[0].update(frame_id='scene')
