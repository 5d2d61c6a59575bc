"""PyramidFFAM on the shipped SECOND and the mini world's validation frames."""

_base_ = ['../second/second_small_miniworld.py']
load_from = 'checkpoints/second_small_miniworld.pth'
custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        # Two layers in place of the paper's one: see docs/better_explainer.md.
        explainer=dict(type='PyramidFFAM', layer='stride4', coarse_layer='stride8', rank=16),
        targets=['all', 'score'],
        select=dict(score_thr=0.3, top_n=20),
        outputs=dict(pictures=['sheet']),
    )
]
