"""SECOND for the mini world: trained on 200 simulated frames."""

_base_ = [
    '../_base_/models/second_small.py',
    '../_base_/datasets/kitti_layout.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]
