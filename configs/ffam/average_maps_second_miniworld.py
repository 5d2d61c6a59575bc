"""Average maps of the shipped SECOND on the mini world: Figs. 4 and 6 of FFAM."""

_base_ = [
    '../second/second_small_miniworld.py',
    '../_base_/explainers/average_maps.py',
]
load_from = 'checkpoints/second_small_miniworld.pth'
test_evaluator = [
    {{_base_.val_evaluator}},
    dict(
        type='explain3d.AverageMapMetric',
        dir='work_dirs/{{fileBasenameNoExtension}}/average_maps',
    ),
]
