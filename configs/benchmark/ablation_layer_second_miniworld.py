"""Table 4 of FFAM: the layer. Its figures were made without neighbours: both are here."""

_base_ = './benchmark_second_miniworld.py'
benchmark = dict(
    methods={
        '_delete_': True,
        'conv1, (0, 1)': dict(type='FFAM', rank=16, layer='stride1', radius=0, k=1),
        'conv2, (0, 1)': dict(type='FFAM', rank=16, layer='stride2', radius=0, k=1),
        'conv3, (0, 1)': dict(type='FFAM', rank=16, layer='stride4', radius=0, k=1),
        'conv4, (0, 1)': dict(type='FFAM', rank=16, layer='stride8', radius=0, k=1),
        'conv1': dict(type='FFAM', rank=16, layer='stride1', radius=2, k=16),
        'conv2': dict(type='FFAM', rank=16, layer='stride2', radius=2, k=16),
        'conv3': dict(type='FFAM', rank=16, layer='stride4', radius=2, k=16),
        'conv4': dict(type='FFAM', rank=16, layer='stride8', radius=2, k=16),
    },
    reference='conv3',
)
