"""FFAM of every detection above 0.3 and every attribute, and their average maps.

True and false positives are compared: no detection is left out for its rank or its match.
"""

custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        explainer=dict(type='FFAM', layer='stride4', rank=16, radius=2, k=16, concepts=False),
        targets=['all', 'x', 'y', 'z', 'l', 'w', 'h', 'yaw', 'score'],
        select=dict(score_thr=0.3),
    )
]
# The columns of the paper's Fig. 4 are the targets; Fig. 6 is of the first.
average_maps = dict(type='explain3d.AverageMapMetric')
