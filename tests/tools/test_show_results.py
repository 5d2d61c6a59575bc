"""Every folder that we write is shown, and any other is called what it is."""

import os
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from explain3d.adapters.common.benchmark_records import RecordStore
from explain3d.adapters.common.measuring import ExplanationMeasure, write_tables
from explain3d.core.results import ResultStore
from explain3d.core.results_archive import write_archive
from explain3d.core.results_check import seal
from explain3d.lmd.detections import DetectionParts, SensorShares
from explain3d.metrics.average_files import write_arrays
from explain3d.metrics.average_maps import MapCollection
from explain3d.metrics.average_protocol import AverageProtocol
from explain3d.metrics.average_shares import share_of
from explain3d.metrics.saliency_table import table_of
from tests.core.test_results import make_detections, make_explanation
from tests.helpers.average_cases import random_frames
from tests.helpers.toy_explanation import toy_explanation
from tests.lmd.test_frame import make_frame

TOOL = Path(__file__).parents[2] / 'tools' / 'show_results.py'


@pytest.fixture
def show(tmp_path, capsys):
    main = runpy.run_path(str(TOOL))['main']

    def run(*options, folder=tmp_path, code=0):
        assert main([str(folder), *options]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def test_saliency(tmp_path, show):
    store = ResultStore(tmp_path)
    for name in ('000008', 'a/b'):
        store.save(make_explanation(name))
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'pictures' / '000008_sheet.png').write_bytes(b'')
    lines = show().splitlines()
    assert lines[0].split()[:3] == ['class', 'target', 'detections']
    assert [line.split()[2] for line in lines[2:6]] == ['4', '4', '2', '2']
    assert '1 pictures, the first:' in lines[-1]
    assert len(show('--each', '--targets', 'yaw').splitlines()) == 2 + 6 + 2 + 2


def test_decompositions(tmp_path, show):
    ResultStore(tmp_path).save(make_frame())
    assert 'decoder.layer1' in show()


def test_sensor_shares(tmp_path, show):
    parts = torch.tensor([[[3.0], [1.0]]] * 3)
    found = DetectionParts(('logit',), ('lidar', 'bias'), parts.sum(1), parts)
    ResultStore(tmp_path).save(SensorShares('f', make_detections(3), found, {}))
    assert '75' in show()


def test_averages(tmp_path, show):
    protocol = AverageProtocol(cells=(8, 4, 4), scale='none', iou_thr=0.5)
    shares = [share_of(frame, protocol) for frame in random_frames(3)]
    write_arrays(MapCollection(shares, protocol), tmp_path)
    lines = show().splitlines()
    assert 'tools/average_maps.py' in lines[0]
    assert {line.split()[1] for line in lines[4:7]} == {'tp', 'fp', 'all'}


def test_a_benchmark(tmp_path, show):
    records = ExplanationMeasure(['vea', 'pg']).records(toy_explanation())
    store = RecordStore(tmp_path / 'frames', {'FFAM': 'a' * 20})
    store.save('FFAM', 0, records)
    message = show(folder=tmp_path / 'frames', code=1)
    assert f'expected the folder of the benchmark, {tmp_path}' in message
    assert 'There may be some in frames' in show(code=1)
    text = write_tables(table_of(records), records, tmp_path)
    assert text.strip() in show()
    (tmp_path / 'table.md').unlink()
    assert '(1 objects)' in show()
    (tmp_path / 'records.json').write_text('{')
    assert 'records.json' in show(code=1)


def test_reports_and_separation(tmp_path, show):
    (tmp_path / 'report.md').write_text('| sensor | share |\n')
    (tmp_path / 'separation.json').write_text(
        '{"format": "explain3d.separation", "version": 1, "protocol": {}, "table": [{"rules": '
        '"identity", "mode": "frozen", "figures": {"pcc": {"mean": 0.25, "std": 0.1}}}]}'
    )
    text = show()
    assert '| sensor | share |' in text
    assert 'identity  frozen  0.250' in text


def test_states(tmp_path, show):
    for name, meta in (('a', {'drawn': 3, 'frame': 'a'}), ('b', {'key': 'x'})):
        with open(tmp_path / f'{name}.npz', 'wb') as file:
            write_archive(file, seal(meta, {'x': np.zeros(1)}))
    text = show()
    assert '1 frames that OccAM has begun' in text
    assert '1 samples of a separation test' in text


def test_what_is_damaged_is_named_and_the_rest_is_shown(tmp_path, show, capsys):
    store = ResultStore(tmp_path)
    store.save(make_explanation())
    store.save(replace(make_explanation(), frame_id='000009'))
    path = store.path_of('000009')
    path.write_bytes(path.read_bytes()[:-30])
    np.savez(tmp_path / 'other.npz', x=np.zeros(3))
    (tmp_path / 'folder.npz').mkdir()
    message = show(code=1)
    for name in ('000009.npz', 'other.npz', 'folder.npz'):
        assert f'not shown: {tmp_path / name}' in message


def test_other_folders(tmp_path, show):
    assert 'holds nothing that explain3d wrote (0 files)' in show(code=1)
    assert 'is no folder' in show(folder=tmp_path / 'missing', code=1)
    (tmp_path / 'mini_manifest.json').write_text('{}')
    assert 'a data set of tools/make_mini_dataset.py' in show(code=1)
    assert os.listdir(tmp_path) == ['mini_manifest.json']
