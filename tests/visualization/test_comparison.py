"""Objects under several methods side by side."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError, UnknownNameError
from explain3d.core.structures import Maps
from explain3d.visualization.comparison import choose_detections, method_panel
from explain3d.visualization.draw import NO_SALIENCY


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_gid() != 'colour-bar']


def with_map(frame, values):
    return replace(frame, maps=Maps({name: values for name in frame.maps.saliency}))


@pytest.fixture
def rows(frame):
    flat = with_map(frame, torch.zeros_like(frame.saliency))
    methods = {'FFAM': frame, 'Flat': flat}
    return [(methods, 1), (methods, 2)]


def test_a_row_for_each_object_and_a_column_for_each_method(rows):
    figure = method_panel(rows)
    assert len(panels(figure)) == 4
    shown = texts(figure)
    assert shown.count('FFAM') == shown.count('Flat') == 2
    assert any('frame 000042' in text and 'm away' in text for text in shown)
    assert shown.count(NO_SALIENCY) == 2
    places = [axes.get_position() for axes in panels(figure)]
    assert places[0].y0 == places[1].y0 > places[2].y0
    assert places[0].x0 == places[2].x0 < places[1].x0


def test_methods_go_on_in_another_line(rows):
    wide, narrow = method_panel(rows), method_panel(rows, columns=1)
    assert len(panels(narrow)) == 4
    assert len({round(axes.get_position().x0, 6) for axes in panels(narrow)}) == 1
    assert narrow.get_figheight() > wide.get_figheight()


def test_each_map_is_over_its_own_maximum(frame):
    dim = with_map(frame, frame.saliency / 100)
    figure = method_panel([({'Bright': frame, 'Dim': dim}, 0)])

    def colours(axes):
        points = [c for c in axes.collections if len(c.get_offsets()) > 20]
        return np.concatenate([c.get_facecolors() for c in points])

    bright, dimmed = (colours(axes) for axes in panels(figure))
    np.testing.assert_allclose(bright, dimmed, atol=0.02)


def test_what_does_not_belong_together_is_refused(rows, frame, make):
    methods = rows[0][0]
    with pytest.raises(InputError, match='received 0 objects'):
        method_panel([])
    with pytest.raises(InputError, match='the same methods'):
        method_panel([rows[0], ({'FFAM': frame}, 0)])
    other = make(boxes=[[9.0, 0, -0.9, 4, 2, 1.6, 0]])
    with pytest.raises(InputError, match='expected Other to explain the same detections'):
        method_panel([({'FFAM': frame, 'Other': other}, 0)])
    with pytest.raises(InputError, match='no detection 9'):
        method_panel([(methods, 9)])
    with pytest.raises(UnknownNameError, match="target 'colour'"):
        method_panel(rows, 'colour')


def test_the_detection_with_the_most_points_is_chosen(frame, empty):
    inside = frame.detections.boxes[1]
    extra = inside[:3].repeat(400, 1)
    points = torch.cat([frame.points, torch.cat([extra, torch.zeros(400, 1)], dim=1)])
    full = replace(frame, points=points)
    assert choose_detections(full, ['car', 'Pedestrian', 'Cyclist']) == {'car': 1, 'Pedestrian': 2}
    assert choose_detections(empty, ['Car']) == {}
