"""Table 5 of FFAM: range and number of the neighbours that a point's value comes from."""

_base_ = './benchmark_second_miniworld.py'
benchmark = dict(
    methods={
        '_delete_': True,
        '(0, 1)': dict(type='FFAM', rank=16, layer='stride4', radius=0, k=1),
        '(1, 4)': dict(type='FFAM', rank=16, layer='stride4', radius=1, k=4),
        '(2, 16)': dict(type='FFAM', rank=16, layer='stride4', radius=2, k=16),
        '(3, 64)': dict(type='FFAM', rank=16, layer='stride4', radius=3, k=64),
    },
    reference='(2, 16)',
)
