"""Pictures of explanations, drawn without a display; docs/results.md shows what there is.

Every function takes an explanation, or a decomposition of LMD, and returns a matplotlib ``Figure``
that belongs to nobody else: neither pyplot nor the user's settings are touched.
"""

from .bev import bev
from .comparison import method_panel
from .lmd import decomposition_maps, decomposition_sheet
from .lmd_layers import gradcam_maps, layer_maps, layer_shares
from .lmd_render import LMD_KINDS, render_decomposition
from .panels import attribute_panel, concept_panel, global_view
from .perspective import object_view
from .render import KINDS, render_frame
from .sheet import contact_sheet
from .style import STYLES, Style, save_figure

__all__ = [
    'KINDS',
    'LMD_KINDS',
    'STYLES',
    'Style',
    'attribute_panel',
    'bev',
    'concept_panel',
    'contact_sheet',
    'decomposition_maps',
    'decomposition_sheet',
    'global_view',
    'gradcam_maps',
    'layer_maps',
    'layer_shares',
    'method_panel',
    'object_view',
    'render_decomposition',
    'render_frame',
    'save_figure',
]
