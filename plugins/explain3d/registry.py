"""Child registries of MMEngine's, scope ``explain3d``: MMEngine imports this module by its name.

A configuration refers to their entries as ``explain3d.NAME``; their modules are imported at the
first look-up, so that ``custom_imports = dict(imports=['explain3d.registry'])`` is enough.
"""

from mmengine.registry import HOOKS as ENGINE_HOOKS
from mmengine.registry import METRICS as ENGINE_METRICS
from mmengine.registry import MODELS as ENGINE_MODELS
from mmengine.registry import TRANSFORMS as ENGINE_TRANSFORMS
from mmengine.registry import Registry

_ADAPTER = 'explain3d.adapters.mmdet3d'


def _child(name: str, parent: Registry, module: str) -> Registry:
    return Registry(name, parent=parent, scope='explain3d', locations=[f'{_ADAPTER}.{module}'])


HOOKS = _child('hook', ENGINE_HOOKS, 'hook')
METRICS = _child('metric', ENGINE_METRICS, 'kitti_metric')
MODELS = _child('model', ENGINE_MODELS, 'wrapper')
TRANSFORMS = _child('transform', ENGINE_TRANSFORMS, 'transforms')
