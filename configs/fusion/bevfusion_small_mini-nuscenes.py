"""A small BEVFusion-style detector on the simulated mini nuScenes, trained on a CPU."""

_base_ = [
    '../_base_/models/bevfusion_small.py',
    '../_base_/datasets/mini_nuscenes_fusion.py',
    '../_base_/schedules/cpu_one_cycle.py',
    '../_base_/default_runtime.py',
]
# The image encoder begins as that of the shipped SimpleBEV, which has seen this data; its first
# stages stay so.
model = dict(
    img_branch=dict(
        encoder=dict(
            init_cfg=dict(
                type='Pretrained',
                checkpoint='checkpoints/simplebev_small_lidar-camera_mini-nuscenes.pth',
                prefix='img_encoder',
            )
        )
    )
)
lr = 0.002
max_iters = 1800
optim_wrapper = dict(optimizer=dict(lr=lr))
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, total_steps=max_iters, pct_start=0.2, by_epoch=False)
]
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=25))
