"""Registries of explain3d below those of MMEngine, under the scope ``explain3d``.

MMEngine imports this module when a configuration names ``explain3d.Something``, and their modules
at the first look-up; nothing else in the package does, so that explain3d works without it.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

_ADAPTER = 'explain3d.adapters.mmdet3d'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope='explain3d', locations=list(locations))


DATASETS = _child('dataset', MMENGINE_DATASETS, f'{_ADAPTER}.bev')
EVALUATOR = _child('evaluator', MMENGINE_EVALUATOR, f'{_ADAPTER}.saliency_metric')
HOOKS = _child('hook', MMENGINE_HOOKS, f'{_ADAPTER}.hook', f'{_ADAPTER}.lmd')
LOOPS = _child('loop', MMENGINE_LOOPS, f'{_ADAPTER}.lmd')
MODELS = _child(
    'model',
    MMENGINE_MODELS,
    f'{_ADAPTER}.explained_model',
    f'{_ADAPTER}.lmd',
    'explain3d.models.fusion',
    'explain3d.models.simplebev',
)
METRICS = _child(
    'metric',
    MMENGINE_METRICS,
    f'{_ADAPTER}.kitti_metric',
    f'{_ADAPTER}.saliency_metric',
    f'{_ADAPTER}.average_map_metric',
    f'{_ADAPTER}.overlap_metric',
    f'{_ADAPTER}.bev',
    f'{_ADAPTER}.lmd',
)
TRANSFORMS = _child('transform', MMENGINE_TRANSFORMS, f'{_ADAPTER}.transforms', f'{_ADAPTER}.bev')
