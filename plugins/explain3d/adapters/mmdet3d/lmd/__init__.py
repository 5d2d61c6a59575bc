"""LMD in MMDetection3D: a hook, a model factory, a Python API and the separation test."""

from .api import decompose
from .hook import LMDHook
from .model import DecomposedModel
from .separation_loop import SeparationTestLoop

__all__ = ['DecomposedModel', 'LMDHook', 'SeparationTestLoop', 'decompose']
