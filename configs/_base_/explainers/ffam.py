"""FFAM as a hook: every attribute and all of them together, files and a contact sheet a frame."""

custom_hooks = [
    dict(
        type='explain3d.ExplainerHook',
        # The paper's block (conv3) has stride 4, its neighbourhood is (2, 16). Its r = 64 equals
        # the number of channels, where the factorisation is trivial: see docs/ffam.md.
        explainer=dict(type='FFAM', layer='stride4', rank=16, radius=2, k=16),
        targets=['all', 'x', 'y', 'z', 'l', 'w', 'h', 'yaw', 'score'],
        select=dict(score_thr=0.3, top_n=20),
        outputs=dict(pictures=['sheet']),
    )
]
