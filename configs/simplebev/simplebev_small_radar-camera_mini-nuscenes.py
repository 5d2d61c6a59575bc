"""A small SimpleBEV with cameras and radar on the simulated mini nuScenes, trained on a CPU."""

_base_ = [
    '../_base_/models/simplebev_small.py',
    '../_base_/datasets/mini_nuscenes_bev.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]
# In the reference frame the radar's velocity lies along x and z.
model = dict(
    rasterizers=dict(radar=dict(features=('vx_comp', 'vz_comp', 'rcs'), scale=(0.1, 0.1, 0.05)))
)
max_iters = 3000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='OneCycleLR', eta_max=0.003, total_steps=max_iters, pct_start=0.2, by_epoch=False)
]
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=25))
