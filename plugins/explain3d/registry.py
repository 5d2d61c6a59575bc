"""Registries of explain3d below those of MMEngine, under the scope ``explain3d``."""

from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import Registry

METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='explain3d',
    locations=['explain3d.adapters.mmdet3d.kitti_metric'],
)
