"""FFAM by its equations against its released code, and what each difference does by itself."""

_base_ = './benchmark_second_miniworld.py'
_released = dict(type='FFAM', reference=True, layer='stride4')
_ours = dict(type='FFAM', rank=16, layer='stride4')
benchmark = dict(
    methods={
        '_delete_': True,
        'Ours': _ours,
        'Ours, r = 64': dict(_ours, rank=64),
        'Ours, KL': dict(_ours, loss='kl'),
        'Ours, concepts as they are': dict(_ours, unit_concepts=False),
        'Ours, features shifted': dict(_ours, negative='shift'),
        'Ours, released upsampling': dict(_ours, upsampling='reference'),
        'Ours, normalised again': dict(_ours, renormalize=True),
        'Released': _released,
        'Released, r = 16': dict(_released, rank=16),
        'Released, Frobenius': dict(_released, loss='frobenius'),
        'Released, Manhattan ball': dict(_released, upsampling='manhattan'),
        'Released, normalised once': dict(_released, renormalize=False),
    },
    reference='Ours',
)
del _released, _ours
