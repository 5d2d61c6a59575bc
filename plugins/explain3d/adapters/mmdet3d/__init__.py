"""The MMDetection3D adapter: a hook, a model factory and a Python API.

Importing this package registers ``explain3d.ExplainerHook`` and ``explain3d.ExplainedModel``, and
makes spconv's backward pass work on a CPU.
"""

from ..common.layers import LayerInfo
from ..common.spconv_compat import ensure_cpu_backward
from .api import explain
from .checkpoint_compat import allow_engine_checkpoints
from .explained_model import ExplainedModel
from .hook import ExplainerHook
from .layers import layers
from .tracer import Tracer

__all__ = [
    'ExplainedModel',
    'ExplainerHook',
    'LayerInfo',
    'Tracer',
    'allow_engine_checkpoints',
    'ensure_cpu_backward',
    'explain',
    'layers',
]

ensure_cpu_backward()
allow_engine_checkpoints()
