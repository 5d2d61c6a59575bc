"""Sensor shares of a data set: by class and range, beside what blanking does."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.core.structures import Detections
from explain3d.lmd.detections import DetectionParts, Effect, SensorShares
from explain3d.lmd.sensor_report import csv_text, figures, json_text, markdown, sentence
from explain3d.lmd.sensor_table import boxes_of, correlation, table_of

NAMES = ('camera', 'lidar', 'bias')


def shares_of(parts, distances, labels, without_lidar, found):
    """A frame whose logits have these parts (K, 3)."""
    parts = torch.tensor(parts, dtype=torch.float64)
    count = len(parts)
    boxes = torch.zeros(count, 7)
    boxes[:, 0] = torch.tensor(distances)
    detections = Detections(
        boxes, torch.full((count,), 0.5), torch.tensor(labels), ('car', 'pedestrian')
    )
    both = torch.stack([parts, 2 * parts.flip(1)], 2)
    raw = torch.tensor(without_lidar, dtype=torch.float64)[:, None].expand(-1, 2)
    effect = Effect(torch.tensor(found), torch.zeros(count), torch.zeros(count), raw)
    return SensorShares(
        'a', detections, DetectionParts(('logit', 'z'), NAMES, both.sum(1), both),
        {'lidar': effect},
    )  # fmt: skip


@pytest.fixture
def frame():
    return shares_of(
        parts=[[1, 3, 0], [-1, 2, 1], [0, 0.5, -0.5], [2, 2, 4]],
        distances=[5, 19, 45, 20],
        labels=[0, 0, 0, 1],
        without_lidar=[1, 0, -1, 6],
        found=[True, False, False, True],
    )


def group(table, category, low, high=math.inf):
    return next(g for g in table.groups if g.category == category and g.range == (low, high))


def test_groups_are_means_over_their_boxes(frame):
    table = table_of(boxes_of(frame), edges=(0, 20, 40))
    near = group(table, 'car', 0, 20)
    assert near.boxes == 2
    assert near.shares == pytest.approx({'camera': 0.25, 'lidar': 0.625, 'bias': 0.125})
    assert near.parts == pytest.approx({'camera': 0, 'lidar': 2.5, 'bias': 0.5})
    assert near.logit == pytest.approx(3) == pytest.approx(sum(near.parts.values()))
    assert near.lost == {'lidar': 0.5}
    assert near.drops == pytest.approx({'lidar': ((4 - 1) + (2 - 0)) / 2})
    assert group(table, 'all', 0).boxes == 4
    assert group(table, 'pedestrian', 20, 40).boxes == 1  # An edge belongs to the range it begins.
    assert not [g for g in table.groups if g.category == 'pedestrian' and g.range[0] == 40]
    assert table.attributes['z']['camera'] == pytest.approx(table.attributes['logit']['bias'])


def test_correlation_of_share_and_effect(frame):
    found = group(table_of(boxes_of(frame)), 'car', 0)
    shares, drops = np.array([0.75, 0.5, 0.5]), np.array([3.0, 2, 1])
    assert found.share_effect['lidar'] == pytest.approx(np.corrcoef(shares, drops)[0, 1])
    assert found.part_effect['lidar'] == pytest.approx(np.corrcoef([3, 2, 0.5], drops)[0, 1])
    assert math.isnan(group(table_of(boxes_of(frame)), 'car', 0, 20).share_effect['lidar'])


def test_correlation_is_not_defined_without_variance_or_pairs():
    assert math.isnan(correlation(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))
    assert math.isnan(correlation(np.array([1.0, 2]), np.array([1.0, 2])))
    assert correlation(np.array([1.0, 2, np.nan, 4]), np.array([-1.0, -2, 9, -4])) == -1


def test_a_logit_without_any_part_has_no_share_and_spoils_no_mean():
    frame = shares_of([[0, 0, 0], [1, 1, 2]], [1, 2], [0, 0], [0, 0], [True, True])
    found = group(table_of(boxes_of(frame)), 'all', 0)
    assert found.shares == {'camera': 0.25, 'lidar': 0.25, 'bias': 0.5}
    frame = shares_of([[0, 0, 0]], [1], [0], [0], [True])
    table = table_of(boxes_of(frame))
    assert math.isnan(group(table, 'all', 0).shares['camera'])
    assert json.loads(json_text(table))['groups'][0]['share_camera'] is None
    assert '| all boxes | 1 | - |' in markdown(table)


def test_the_answer_is_a_sentence(frame):
    table = table_of(boxes_of(frame))
    assert sentence(group(table, 'car', 40)) == (
        'car boxes beyond 40 m (1): camera 0.0 %, lidar 50.0 %, bias 50.0 % of the evidence; '
        'blanking lidar loses 100.0 % of them.'
    )
    assert sentence(group(table, 'car', 40)) in markdown(table)


def test_all_forms_of_the_report_have_the_same_figures(frame):
    table = table_of(boxes_of(frame), protocol={'score_thr': 0.2})
    rows = list(csv.DictReader(csv_text(table).splitlines()))
    content = json.loads(json_text(table))
    assert len(rows) == len(content['groups']) == len(table.groups)
    for row, entry in zip(rows, content['groups'], strict=True):
        for key, value in entry.items():
            if isinstance(value, float):
                assert float(row[key]) == value
    assert content['protocol'] == {'score_thr': 0.2}
    assert 'Protocol: score_thr 0.2.' in markdown(table)
    assert figures(table)['car/lost_without_lidar'] == pytest.approx(2 / 3)
    assert figures(table)['all/boxes'] == 4


def test_bad_input_is_refused(frame):
    with pytest.raises(InputError, match='received none'):
        table_of([])
    with pytest.raises(InputError, match='ascending edges'):
        table_of(boxes_of(frame), edges=(0, 0))


def test_the_picture_has_a_line_for_each_group_and_a_bar_for_each_component(frame, tmp_path):
    from explain3d.visualization.sensor_shares import share_figure
    from explain3d.visualization.style import save_figure

    table = table_of(boxes_of(frame))
    figure = share_figure(table)
    shares, lost = figure.axes
    assert len(shares.get_yticklabels()) == len(table.groups)
    assert [len(bars) for bars in shares.containers] == [len(table.groups)] * 3
    widths = np.array([[bar.get_width() for bar in bars] for bars in shares.containers])
    np.testing.assert_allclose(widths.sum(0), 100)
    assert [bar.get_width() for bar in lost.containers[0]] == [
        100 * g.lost['lidar'] for g in table.groups
    ]
    assert save_figure(figure, tmp_path / 'a.png').stat().st_size > 10000


def test_a_box_has_the_colours_of_its_sensors(frame):
    from matplotlib.colors import to_rgb

    from explain3d.visualization.lmd_panels import component_colours
    from explain3d.visualization.share_view import box_colours, share_view

    colours = {name: np.array(to_rgb(c)) for name, c in component_colours(NAMES).items()}
    found = box_colours(frame)
    np.testing.assert_allclose(found[0], 0.25 * colours['camera'] + 0.75 * colours['lidar'])
    np.testing.assert_allclose(found[2], colours['lidar'])  # Its other half is the bias.
    frame.detections.boxes[:, 3:6] = torch.tensor([4.0, 2, 1.5])
    (axes,) = share_view(frame, torch.randn(50, 3) * 20).axes
    lines = [c for c in axes.collections if c.get_gid() == 'detections']
    assert [float(c.get_linewidths()[0]) for c in lines] == [1.0, 2.2, 2.2, 1.0]
    captions = {text.get_text() for text in axes.texts if text.get_gid() == 'caption'}
    assert 'car 100 % lidar, lost without lidar' in captions
    assert 'pedestrian 50 % camera' in captions
    nothing = shares_of([[0, 0, 0]], [1], [0], [0], [True])
    assert (box_colours(nothing) == 0.5).all()
    assert share_view(nothing).axes
