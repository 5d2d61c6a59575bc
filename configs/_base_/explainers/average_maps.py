"""FFAM of every detection above 0.3 and every attribute, for average maps.

True and false positives are compared: no detection is left out for its rank or its match. The
targets are the columns of the paper's Fig. 4; Fig. 6 is of the first.
"""

custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        explainer=dict(type='FFAM', layer='stride4', rank=16, radius=2, k=16, concepts=False),
        targets=['all', 'score', 'center', 'l', 'w', 'h', 'yaw'],
        select=dict(score_thr=0.3),
    )
]
