"""FFAM on real KITTI frames: the validation frames in the folder that EXPLAIN3D_REAL_DATA names."""

_base_ = [
    '../second/second_small_kitti-mini.py',
    '../_base_/explainers/ffam.py',
]
load_from = 'checkpoints/kitti-mini/second_small_kitti-mini.pth'
# Scores of these weights are high: see checkpoints/README.md.
_base_.custom_hooks[0].select.update(score_thr=0.55)
