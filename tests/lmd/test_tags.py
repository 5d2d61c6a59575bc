"""Tags of frames and objects, and their groups in the report of sensor shares."""

import csv
import math

import pytest
import torch

from explain3d.core.errors import InputError
from explain3d.lmd.sensor_report import csv_text, figures, markdown
from explain3d.lmd.sensor_table import boxes_of, table_of
from explain3d.lmd.tags import FrameTags, read_tags, write_tags
from tests.lmd.test_sensor_table import shares_of


def boxes_at(*xs):
    boxes = torch.zeros(len(xs), 7, dtype=torch.float64)
    boxes[:, 0], boxes[:, 3:6] = torch.tensor(xs), 2
    return boxes


TAGS = FrameTags(
    {'weather': 'rain'}, boxes_at(5.0, 6.0, 30.0), {'visibility': ['v0-40', 'v80-100', None]}
)


def test_a_box_has_the_tags_of_its_frame_and_of_the_object_that_it_overlaps_most():
    found = TAGS.of(boxes_at(5.4, 5.9, 30.0, 90.0), overlap=0.1)
    rain = {'weather': 'rain'}
    assert found == [
        {**rain, 'visibility': 'v0-40'},
        {**rain, 'visibility': 'v80-100'},
        rain,
        rain,
    ]
    assert TAGS.of(boxes_at(6.9), overlap=0.5) == [rain]
    assert TAGS.of(boxes_at(), overlap=0.5) == []
    assert FrameTags({'a': 'b'}).of(boxes_at(1.0), 0.1) == [{'a': 'b'}]


def test_a_file_gives_back_what_was_written(tmp_path):
    write_tags(tmp_path / 'tags.json', {'f': TAGS, 'g': FrameTags()})
    found = read_tags(tmp_path / 'tags.json')
    assert (found['f'].tags, found['f'].box_tags) == (TAGS.tags, TAGS.box_tags)
    torch.testing.assert_close(found['f'].boxes, TAGS.boxes)
    assert len(found['g'].boxes) == 0


def test_bad_files_and_numbers_are_refused(tmp_path):
    path = tmp_path / 'tags.json'
    with pytest.raises(InputError, match='JSON file of tags'):
        read_tags(path)
    path.write_text('{"frames": {}}')
    with pytest.raises(InputError, match='make_tags.py'):
        read_tags(path)
    path.write_text('{"format": "explain3d.tags", "frames": {"f": {"box_tags": {"a": ["b"]}}}}')
    with pytest.raises(InputError, match="Frame 'f'.*values"):
        read_tags(path)
    with pytest.raises(InputError, match='received both'):
        FrameTags({'a': 'b'}, box_tags={'a': []})


def test_each_tag_is_a_group_of_the_report():
    frame = shares_of(
        parts=[[1, 3, 0], [-1, 2, 1], [0, 2, 2]],
        distances=[5, 6, 45],
        labels=[0, 1, 0],
        without_lidar=[1, 0, -1],
        found=[True, False, False],
    )
    frame.detections.boxes[:, 3:6] = 2
    table = table_of(boxes_of(frame, TAGS))
    tagged = {group.tag: group for group in table.groups if group.tag}
    assert [(tag, group.boxes) for tag, group in tagged.items()] == [
        (('visibility', 'v0-40'), 1), (('visibility', 'v80-100'), 1), (('weather', 'rain'), 3),
    ]  # fmt: skip
    seen = tagged['visibility', 'v80-100']
    assert seen.shares == pytest.approx({'camera': 0.25, 'lidar': 0.5, 'bias': 0.25})
    assert (seen.lost, seen.range) == ({'lidar': 1.0}, (0, math.inf))
    assert '- all boxes, weather rain (3): camera' in markdown(table)
    assert [row['tag'] for row in csv.DictReader(csv_text(table).splitlines())][-1] == (
        'weather=rain'
    )
    assert figures(table)['visibility=v0-40/boxes'] == 1
    assert figures(table)['all/boxes'] == 3
    assert not any(group.tag for group in table_of(boxes_of(frame)).groups)
