"""Contribution on the shipped SECOND and the mini world's validation frames."""

_base_ = ['../second/second_small_miniworld.py']
load_from = 'checkpoints/second_small_miniworld.pth'
custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        # The last sparse block, not the paper's: see docs/better_explainer.md.
        explainer=dict(type='Contribution', layer='stride8', radius=2, k=16),
        targets=['all', 'score'],
        select=dict(score_thr=0.3, top_n=20),
        outputs=dict(pictures=['sheet']),
    )
]
