"""A small SimpleBEV with cameras and radar on the simulated mini nuScenes, trained on a CPU."""

_base_ = [
    '../_base_/models/simplebev_small.py',
    '../_base_/datasets/mini_nuscenes_bev.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]
# Vehicles are rare; a short training finds them sooner with more weight on them.
model = dict(heads=dict(segmentation=dict(pos_weight=4.0)))
lr = 0.002
max_iters = 2700
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters, pct_start=0.15, by_epoch=False)
]
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=25))
