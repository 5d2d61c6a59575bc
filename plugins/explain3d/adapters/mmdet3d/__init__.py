"""The MMDetection3D adapter: a hook, a model factory and a Python API.

Importing this package registers ``explain3d.ExplainerHook`` and ``explain3d.ExplainedModel``, and
makes spconv's backward pass work on a CPU and MMEngine's loaders read MMEngine's own checkpoints.
"""

from ..common.layers import LayerInfo
from ..common.spconv_compat import ensure_cpu_backward
from .api import explain
from .checkpoint_compat import guard_checkpoint_loaders
from .explained_model import ExplainedModel
from .hook import ExplainerHook
from .layers import layers
from .tracer import Tracer

__all__ = [
    'ExplainedModel',
    'ExplainerHook',
    'LayerInfo',
    'Tracer',
    'ensure_cpu_backward',
    'explain',
    'guard_checkpoint_loaders',
    'layers',
]

ensure_cpu_backward()
guard_checkpoint_loaders()
