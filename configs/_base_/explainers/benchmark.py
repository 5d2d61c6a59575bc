"""Every method of the benchmark, one line each, at the paper's block and neighbourhood."""

_at = dict(layer='stride4', radius=2, k=16)
benchmark = dict(
    methods={
        'FFAM': dict(type='FFAM', rank=16, **_at),
        'FFAM released': dict(type='FFAM', reference=True, layer='stride4'),
        'Channel sum': dict(type='ChannelSum', **_at),
        'PyramidFFAM': dict(type='PyramidFFAM', rank=16, **_at),
        'Contribution': dict(type='Contribution', layer='stride8'),
        'Object gradient': dict(type='ObjectGradient', **_at),
        'Gradient x input': dict(type='GradientTimesInput', **_at),
        'Integrated gradients': dict(type='IntegratedGradients', steps=20, **_at),
        'ODAM': dict(type='ODAM', **_at),
        'Grad-CAM': dict(type='GradCAM', **_at),
        'OccAM': dict(type='OccAM', samples=3000, density=[0.4], voxel_size=0.2),
        'Random': dict(type='RandomMap', layer='stride4'),
    },
    targets=['all'],
    metrics=['deletion', 'insertion', 'vea', 'pg', 'enpg', 'sparseness'],
    select=dict(score_thr=0.3),
)
del _at
