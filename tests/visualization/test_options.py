"""Options of pictures are refused before there is anything to draw."""

import math

import pytest

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.visualization import render_frame
from explain3d.visualization.average_render import write_pictures
from explain3d.visualization.lmd_render import render_decomposition
from explain3d.visualization.style import Style


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(style='sepia'), "Unknown style 'sepia'"),
        (dict(suffix='.jpg'), "Unknown suffix '.jpg'"),
        (dict(suffix='pdf'), "Did you mean '.pdf'"),
        (dict(dpi=0), 'Expected 0 < dpi <= 2400, a finite number or None, received 0'),
        (dict(dpi=math.inf), 'received inf'),
        (dict(dpi='200'), 'without quotes'),
    ],
)
@pytest.mark.parametrize('draw', [render_frame, render_decomposition, write_pictures])
def test_a_bad_option_is_refused_whatever_is_drawn(draw, options, message, tmp_path):
    with pytest.raises((InputError, UnknownNameError), match=message):
        draw(None, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_options_of_one_frame(tmp_path):
    with pytest.raises(InputError, match='Expected max_objects >= 0, .* received -1'):
        render_frame(None, tmp_path, max_objects=-1, style=Style())
    with pytest.raises(InputError, match='Expected target to be None or text, received 3'):
        render_frame(None, tmp_path, target=3)
