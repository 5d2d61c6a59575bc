"""Average maps of SECOND on real KITTI frames: Figs. 4 and 6 of FFAM."""

_base_ = [
    '../second/second_small_kitti-mini.py',
    '../_base_/explainers/average_maps.py',
]
load_from = 'checkpoints/kitti-mini/second_small_kitti-mini.pth'
test_evaluator = [
    {{_base_.val_evaluator}},
    dict(
        type='explain3d.AverageMapMetric',
        dir='work_dirs/{{fileBasenameNoExtension}}/average_maps',
    ),
]
