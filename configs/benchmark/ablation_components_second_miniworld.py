"""Table 10 of FFAM: object gradient (OG), voxel upsampling (VU) and feature factorisation (FF).

Beside them the channel sum (CS) in the place of the factorisation.
"""

_base_ = './benchmark_second_miniworld.py'
_nearest = dict(layer='stride4', radius=0, k=1)
_upsampled = dict(layer='stride4', radius=2, k=16)
benchmark = dict(
    methods={
        '_delete_': True,
        'OG': dict(type='ObjectGradient', **_nearest),
        'OG + VU': dict(type='ObjectGradient', **_upsampled),
        'OG + FF': dict(type='FFAM', rank=16, **_nearest),
        'OG + VU + FF': dict(type='FFAM', rank=16, **_upsampled),
        'OG + CS': dict(type='ChannelSum', **_nearest),
        'OG + VU + CS': dict(type='ChannelSum', **_upsampled),
    },
    reference='OG + VU + FF',
)
del _nearest, _upsampled
