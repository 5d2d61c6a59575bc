"""LMD on the shipped SimpleBEV with camera and radar, on the simulated mini nuScenes."""

_base_ = [
    '../simplebev/simplebev_small_radar-camera_mini-nuscenes.py',
    '../_base_/explainers/lmd.py',
]
load_from = 'checkpoints/simplebev_small_radar-camera_mini-nuscenes.pth'
