"""Layer-wise modality decomposition (LMD): the parts of each activation that each sensor made."""

from .call import Call
from .components import BIAS, Components
from .decomposition import Decomposition, Output, decompose_module
from .exports import Export, ExportWarning
from .frozen import FrozenRecord
from .registry import forms, method_rule, module_rule, named, rule
from .report import LayerReport
from .rows import Rows
from .seeds import Seed
from .settings import Rules

__all__ = [
    'BIAS',
    'Call',
    'Components',
    'Decomposition',
    'Export',
    'ExportWarning',
    'FrozenRecord',
    'LayerReport',
    'Output',
    'Rows',
    'Rules',
    'Seed',
    'decompose_module',
    'forms',
    'method_rule',
    'module_rule',
    'named',
    'rule',
]
