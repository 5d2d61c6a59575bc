"""The benchmark on a small CenterPoint and mini Waymo, found through EXPLAIN3D_MINI_WAYMO.

Name the weights: there are none for it yet.
"""

_base_ = [
    '../centerpoint/centerpoint_small_mini-waymo.py',
    '../_base_/explainers/benchmark.py',
]
