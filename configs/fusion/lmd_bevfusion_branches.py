"""Which branch of BEVFusion made each box; LiDAR depth that the camera branch reads is its part.

On top of a configuration of MMDetection3D's projects/BEVFusion, whose path BEVFUSION_CONFIG holds;
run where `projects` can be imported. See docs/sensor_shares.md.
"""

_base_ = '{{$BEVFUSION_CONFIG:BEVFUSION_CONFIG_is_not_set.py}}'
sensor_report = dict(seeds='branches', score_thr=0.2)  # Of tools/sensor_report.py.
custom_hooks = [dict(type='explain3d.SensorShareHook', seeds='branches', score_thr=0.2)]
test_evaluator = [{{_base_.test_evaluator}}, dict(type='explain3d.SensorShareMetric')]
