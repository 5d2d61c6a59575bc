"""Pictures of explanations, drawn without a display; docs/results.md shows what there is.

Every function takes an explanation and returns a matplotlib ``Figure`` that belongs to nobody
else: neither pyplot nor the user's settings are touched.
"""

from .bev import bev
from .panels import attribute_panel, concept_panel, global_view
from .perspective import object_view
from .render import KINDS, render_frame
from .sheet import contact_sheet
from .style import STYLES, Style, save_figure

__all__ = [
    'KINDS',
    'STYLES',
    'Style',
    'attribute_panel',
    'bev',
    'concept_panel',
    'contact_sheet',
    'global_view',
    'object_view',
    'render_frame',
    'save_figure',
]
