"""LMD in MMDetection3D: hooks, a model factory, a Python API, separation test, sensor report."""

from .api import decompose, sensor_shares
from .hook import LMDHook
from .model import DecomposedModel
from .separation_loop import SeparationTestLoop
from .share_hook import SensorShareHook
from .share_metric import SensorShareMetric

__all__ = [
    'DecomposedModel',
    'LMDHook',
    'SensorShareHook',
    'SensorShareMetric',
    'SeparationTestLoop',
    'decompose',
    'sensor_shares',
]
