"""How well LMD separates camera and radar on real nuScenes keyframes (EXPLAIN3D_REAL_DATA)."""

_base_ = [
    '../simplebev/simplebev_small_radar-camera_nuscenes-keyframes.py',
    '../_base_/explainers/lmd_separation.py',
]
test_cfg = {{_base_.lmd_separation}}
