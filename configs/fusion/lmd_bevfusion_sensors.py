"""Which sensor made each box of BEVFusion: the depth images of its camera branch count as LiDAR.

On top of a configuration of MMDetection3D's projects/BEVFusion, whose path BEVFUSION_CONFIG holds;
run where `projects` can be imported. See docs/sensor_shares.md.
"""

_base_ = '{{$BEVFUSION_CONFIG:BEVFUSION_CONFIG_is_not_set.py}}'
sensor_report = dict(seeds='sensors', score_thr=0.2)  # Of tools/sensor_report.py.
custom_hooks = [dict(type='explain3d.SensorShareHook', seeds='sensors', score_thr=0.2)]
test_evaluator = [{{_base_.test_evaluator}}, dict(type='explain3d.SensorShareMetric')]
