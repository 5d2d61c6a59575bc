"""Which sensor made each box of the small BEVFusion-style detector, on the mini nuScenes."""

_base_ = './bevfusion_small_mini-nuscenes.py'
load_from = 'checkpoints/bevfusion_small_mini-nuscenes.pth'
custom_hooks = [
    # Where sensors meet: as the model proposes, the two inputs of the fuser.
    dict(type='explain3d.SensorShareHook', seeds='sensors', score_thr=0.2)
]
test_evaluator = [{{_base_.test_evaluator}}, dict(type='explain3d.SensorShareMetric')]
