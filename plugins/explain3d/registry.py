"""Registries of explain3d below those of MMEngine, under the scope ``explain3d``.

MMEngine imports this module when a configuration names ``explain3d.Something``; nothing else in
the package does, so that explain3d works without it.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

_ADAPTER = ['explain3d.adapters.mmdet3d']

HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='explain3d', locations=_ADAPTER)
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='explain3d', locations=_ADAPTER)
METRICS = Registry(
    'metric',
    parent=MMENGINE_METRICS,
    scope='explain3d',
    locations=['explain3d.adapters.mmdet3d.kitti_metric'],
)
