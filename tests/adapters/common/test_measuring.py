"""Measuring a run's explanations whatever the host: files, repeats, frames that failed."""

import json
import os
from dataclasses import replace

import pytest
import torch

from explain3d.adapters.common.measuring import (
    ExplanationMeasure,
    RecordFolder,
    each_once,
    scalars_of,
    write_tables,
)
from explain3d.core.errors import InputError, ResultFileError
from explain3d.metrics.saliency_table import load_records, table_of
from tests.helpers.toy_explanation import toy_explanation


@pytest.fixture
def explanation():
    return toy_explanation()


def test_the_protocol_names_the_detector(explanation):
    (record,) = ExplanationMeasure(['vea', 'deletion']).records(explanation)
    assert record.protocol['detector'] == 'abc'
    assert record.figures['vea'] == 1
    (record,) = ExplanationMeasure(['vea'], {'detector': 'mine'}).records(explanation)
    assert record.protocol['detector'] == 'mine'
    with pytest.raises(InputError, match=r"Unknown part of a protocol \['step'\]"):
        ExplanationMeasure(['vea'], {'step': 3})


def test_a_frame_that_failed_has_no_records(explanation):
    failed = replace(explanation, ground_truth=None)
    measure = ExplanationMeasure(['vea'])
    with pytest.raises(InputError, match='annotated objects'):
        measure.records(failed)
    failed.maps.info['error'] = 'its points are not finite'
    assert measure.records(failed) == []


def changes(explanation):
    moved = explanation.points.clone()
    moved[8, 2] = 0.5
    truth = replace(explanation.ground_truth, labels=torch.tensor([0]).int())
    shifted = explanation.detections.boxes + 0.01
    inverse = 1 - explanation.saliency
    return [
        replace(explanation, points=moved),
        replace(explanation, settings={'model': 'abc', 'layer': 'y'}),
        replace(explanation, detections=replace(explanation.detections, boxes=shifted)),
        replace(explanation, ground_truth=replace(truth, boxes=truth.boxes * 1.01)),
        replace(explanation, ground_truth=replace(truth, class_names=('Van',))),
        replace(explanation, maps=replace(explanation.maps, saliency={'all': inverse})),
    ]


def test_records_are_taken_from_files_of_the_same_measurement_alone(explanation, tmp_path):
    folder = RecordFolder(ExplanationMeasure(['deletion', 'pg']), tmp_path)
    first = folder.records(explanation)
    passes = explanation.black_box.passes
    assert folder.records(explanation) == first
    assert explanation.black_box.passes == passes
    paths = {folder.path(other) for other in [explanation, *changes(explanation)]}
    assert len(paths) == 7
    for measure in (
        ExplanationMeasure(['pg']),
        ExplanationMeasure(['deletion', 'pg'], {'steps': 5}),
    ):
        assert RecordFolder(measure, tmp_path).path(explanation) not in paths
    RecordFolder(folder.measure, tmp_path, resume=False).records(explanation)
    assert explanation.black_box.passes > passes


def test_a_damaged_file_is_measured_again(explanation, tmp_path):
    folder = RecordFolder(ExplanationMeasure(['pg']), tmp_path)
    first = folder.records(explanation)
    folder.path(explanation).write_text('{"records": 3}')
    assert folder.records(explanation) == first
    assert load_records(folder.path(explanation)) == first


@pytest.mark.parametrize(
    'change',
    [
        dict(frame=3),
        dict(category=None),
        dict(object=-1),
        dict(points=2.5),
        dict(score='0.5'),
        dict(distance=float('inf')),
        dict(figures={'pg': 'a'}),
        dict(figures=[1]),
        dict(curves={'deletion': [True]}),
        dict(protocol=-1),
        dict(protocol=1),
        dict(more=1),
    ],
)
def test_records_that_do_not_fit_are_refused(explanation, tmp_path, change, caplog):
    folder = RecordFolder(ExplanationMeasure(['pg']), tmp_path)
    first = folder.records(explanation)
    path = folder.path(explanation)
    content = json.loads(path.read_text())
    content['records'][0] |= change
    for checked in (True, False):  # Changed by accident, and without a checksum.
        if not checked:
            del content['checksum']
        path.write_text(json.dumps(content))
        with pytest.raises(ResultFileError, match='has no records of a benchmark'):
            load_records(path)
        assert folder.records(explanation) == first
    assert caplog.text.count('It is measured again') == 2


def test_a_folder_is_no_file_of_records(explanation, tmp_path):
    folder = RecordFolder(ExplanationMeasure(['pg']), tmp_path)
    folder.path(explanation).mkdir()
    with pytest.raises(ResultFileError, match='is a folder: expected a file of records'):
        folder.records(explanation)


def test_what_killed_runs_leave_is_removed(tmp_path):
    left = tmp_path / '.explain3d-elsewhere-77-0123abcd.tmp'
    left.write_bytes(b'x')
    os.utime(left, (0, 0))
    RecordFolder(ExplanationMeasure(['pg']), tmp_path)
    assert not left.exists()


def test_repeated_frames_count_once_and_tables_are_written(explanation, tmp_path, caplog):
    (record,) = ExplanationMeasure(['vea', 'pg']).records(explanation)
    other = replace(record, frame='000003', figures={'vea': 0.5, 'vea_max': 0.5, 'pg': 0.0})
    records = each_once([record, other, record])
    assert [r.frame for r in records] == ['000003', '000007']
    assert not caplog.records
    assert each_once([record, replace(record, points=3)]) == [record]
    assert "Two objects are called '000007/0'" in caplog.text
    table = table_of(records)
    text = write_tables(table, records, tmp_path)
    assert '(2 objects)' in text
    assert (tmp_path / 'table.md').read_text() == text + '\n'
    assert load_records(tmp_path / 'records.json') == records
    assert 'vea_max' in (tmp_path / 'table.csv').read_text()
    values = scalars_of(table)
    assert values['all/all/vea'] == 0.75
    assert values['all/Car/pg_count'] == values['objects'] == 2
