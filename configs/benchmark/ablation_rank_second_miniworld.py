"""Table 6 of FFAM: the number of concepts, beside the channel sum that they are to improve on.

The layer has 64 channels: 64 concepts reduce nothing, and 128 need a random start.
"""

_base_ = './benchmark_second_miniworld.py'
_at = dict(layer='stride4', radius=2, k=16)
benchmark = dict(
    methods={
        '_delete_': True,
        'r = 8': dict(type='FFAM', rank=8, **_at),
        'r = 16': dict(type='FFAM', rank=16, **_at),
        'r = 32': dict(type='FFAM', rank=32, **_at),
        'r = 64': dict(type='FFAM', rank=64, **_at),
        'r = 64, random start': dict(type='FFAM', rank=64, init='random', **_at),
        'r = 128, random start': dict(type='FFAM', rank=128, init='random', **_at),
        'Channel sum': dict(type='ChannelSum', **_at),
    },
    reference='r = 16',
)
del _at
