"""FFAM on the LiDAR branch of the small BEVFusion-style detector: where the LiDAR part lies.

The target `logit` is that of the sensor shares; see docs/sensor_shares.md.
"""

_base_ = ['./bevfusion_small_mini-nuscenes.py', '../_base_/explainers/ffam.py']
load_from = 'checkpoints/bevfusion_small_mini-nuscenes.pth'
custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        explainer=dict(type='FFAM', layer='stride4', rank=16, radius=2, k=16),
        targets=['logit', 'all'],
        select=dict(score_thr=0.2, top_n=20),
        outputs=dict(pictures=['sheet']),
    )
]
