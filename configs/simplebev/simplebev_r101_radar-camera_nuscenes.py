"""SimpleBEV, cameras and radar with all its metadata, on nuScenes (LMD, Table 3).

Trained as its authors do: 25,000 steps of 40 samples, AdamW, a linear one-cycle schedule. For 8
processes with 5 samples each; ``find_unused_parameters`` because nothing trains the feature head.
"""

_base_ = [
    '../_base_/models/simplebev_r101.py',
    '../_base_/datasets/nuscenes_bev.py',
    '../_base_/default_runtime.py',
]
max_iters = 25000
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-7),
    clip_grad=dict(max_norm=5, norm_type=2),
)
param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=5e-4,
        # The authors' schedule is a hundred steps longer than their training.
        total_steps=max_iters + 100,
        pct_start=0.05,
        anneal_strategy='linear',
        by_epoch=False,
    )
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(interval=1000))
find_unused_parameters = True
