"""LMD on real nuScenes keyframes (EXPLAIN3D_REAL_DATA), with the weights of the mini nuScenes."""

_base_ = [
    '../simplebev/simplebev_small_radar-camera_nuscenes-keyframes.py',
    '../_base_/explainers/lmd.py',
]
_base_.custom_hooks[0].update(frame_id='scene')
