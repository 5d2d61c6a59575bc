"""tools/benchmark.py on a tiny detector: stopped, resumed, with methods that fail, in processes."""

import errno
import importlib.util
import json
import math
import os
import pickle
import shutil
from pathlib import Path

import pytest

pytest.importorskip('mmdet3d')

import tiny_detectors as tiny
import tiny_run
import torch

from explain3d.adapters.common import benchmark_frames as benchmark_module
from explain3d.adapters.common.benchmark_run import run_frames
from explain3d.adapters.mmdet3d.benchmark import FrameBenchmark
from explain3d.core.structures import Maps
from explain3d.methods import EXPLAINERS, Explainer
from explain3d.metrics.saliency_table import load_records

ROOT = Path(__file__).parents[3]
METHODS = {
    'FFAM': dict(type='FFAM', rank=4),
    'IG': dict(type='IntegratedGradients', steps=1),
    'Random': dict(type='RandomMap'),
}
#: The random detector's boxes hardly overlap the annotated car.
SETTINGS = dict(
    methods=METHODS,
    metrics=['vea', 'pg', 'enpg', 'sparseness'],
    protocol=dict(iou_thr=0.01, score_thr=0.0, steps=3),
    select=dict(score_thr=0.0),
)


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool('benchmark')
QUICK = ['--methods', 'FFAM', 'Random']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three frames, a checkpoint and a configuration with a benchmark."""
    folder = tmp_path_factory.mktemp('benchmark')
    data = tiny_run.write_dataset(folder / 'data', frames=3)
    torch.save(dict(state_dict=tiny.half(tiny.build(tiny.second()))), folder / 'second.pth')
    extra = dict(load_from=str(folder / 'second.pth'), class_names=tiny.CLASSES)
    text = tiny_run.config_text(data, benchmark=SETTINGS, **extra)
    # Serialising collects garbage, which takes longer than a frame does.
    text = text.replace("'test_mode': True", "'test_mode': True, 'serialize_data': False")
    (folder / 'benchmark.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def whole(folder):
    """Records of a run that nothing disturbed."""
    return run(folder, folder / 'whole')


def run(folder, out, *options):
    tool.main([str(folder / 'benchmark.py'), '--out-dir', str(out), *options])
    return load_records(out / 'records.json')


def same(records, others):
    """The records of some methods equal ``others``, but for the time that was taken."""
    methods = {record.method for record in records}
    chosen = [record for record in others if record.method in methods]
    return records and [plain(r) for r in records] == [plain(r) for r in chosen]


def plain(record):
    figures = {k: v for k, v in record.figures.items() if k != 'seconds'}
    return json.dumps({**vars(record), 'figures': figures}, sort_keys=True)


class Failing(Explainer):
    """Cannot explain one frame, and gives NaN for another."""

    def explain(self, trace, targets):
        if trace.frame_id == '000001':
            raise RuntimeError('out of memory, or so')
        values = trace.points.new_ones(len(trace.detections), len(trace.points))
        if trace.frame_id == '000002':
            values[0, 5] = math.nan
        return Maps({t.name: values for t in targets})


@pytest.fixture
def failing(monkeypatch):
    monkeypatch.setitem(EXPLAINERS._entries, 'Failing', Failing)


def test_every_object_has_every_figure_of_every_method(whole, folder):
    objects = {record.name for record in whole}
    assert len(objects) == 3
    assert len(whole) == len(objects) * len(METHODS)
    names = {'vea', 'vea_max', 'pg', 'enpg', 'sparseness', 'seconds', 'passes'}
    assert all(set(record.figures) == names for record in whole)
    assert all(record.figures['seconds'] > 0 for record in whole)
    for name in ('table.md', 'by_class.md', 'table.tex', 'table.csv', 'table.json', 'plan.json'):
        assert (folder / 'whole' / name).stat().st_size > 0
    assert not (folder / 'whole/curves.png').exists()
    cells = json.loads((folder / 'whole/table.json').read_text())['cells']
    assert {cell['method'] for cell in cells} == set(METHODS)
    assert '| FFAM | all | ' in (folder / 'whole/by_class.md').read_text()


def test_passes_are_those_that_a_method_makes(whole):
    """One object a frame; no windows: the host's own pass, and a second one for the trace.

    Then its backward pass, or a replay for each step and the end.
    """
    passes = {record.method: record.figures['passes'] for record in whole}
    assert passes == {'FFAM': 1 + 1 + 1, 'Random': 1 + 1, 'IG': 1 + 1 + 2 + 1}


def test_all_metrics_on_one_frame(folder, tmp_path):
    metrics = ['deletion', 'insertion', 'stability', 'randomisation']
    options = ['--frames', '1', '--methods', 'FFAM', 'Random', '--metrics', *metrics]
    records = run(folder, tmp_path, *options)
    for record in records:
        assert set(metrics) <= set(record.figures)
        assert any(name.startswith('randomisation_') for name in record.figures)
        assert len(record.curves['deletion']) == 3
    by_method = {record.method: record.figures for record in records}
    # Random numbers do not know the weights, nor where the points are.
    assert by_method['Random']['randomisation'] == pytest.approx(1)
    assert by_method['FFAM']['randomisation'] < 0.9
    assert (tmp_path / 'curves.png').exists()


def test_a_second_run_and_a_method_that_is_added(folder, whole, tmp_path, monkeypatch):
    run(folder, tmp_path, '--methods', 'FFAM', 'Random')
    explained = []
    real = benchmark_module.explained

    def watched(explainer, *rest):
        explained.append(type(explainer.explainer).__name__)
        return real(explainer, *rest)

    monkeypatch.setattr(benchmark_module, 'explained', watched)
    assert same(run(folder, tmp_path), whole)
    assert set(explained) == {'IntegratedGradients'}
    explained.clear()
    assert same(run(folder, tmp_path), whole)
    # Another name in the table is no other method.
    renamed = run(folder, tmp_path, '--methods', 'FFAM(k=16)', 'Random')
    assert {record.method for record in renamed} == {'FFAM(k=16)', 'Random'}
    assert explained == []


def test_a_run_that_is_killed_within_a_frame_goes_on(folder, whole, tmp_path, monkeypatch):
    calls, real = [], benchmark_module.explained

    def killed(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(benchmark_module, 'explained', killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path, *QUICK)
    assert len(list((tmp_path / 'frames').glob('*.json'))) == 2
    assert not (tmp_path / 'records.json').exists()
    monkeypatch.undo()
    assert same(run(folder, tmp_path, *QUICK), whole)


def test_damaged_and_foreign_files_are_measured_again(folder, whole, tmp_path, caplog):
    run(folder, tmp_path, *QUICK)
    files = sorted((tmp_path / 'frames').glob('*.json'))
    for path, content in zip(
        files, ('', '{"protocols": [', '[]', '{"records": [1]}'), strict=False
    ):
        path.write_text(content)
    assert same(run(folder, tmp_path, *QUICK), whole)
    assert caplog.text.count('It is measured again') == 4


def test_records_are_those_of_the_annotation_as_it_is(folder, whole, tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(folder / 'data', data)
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={data}/', '--methods', 'Random']
    first = run(folder, tmp_path / 'out', *options)
    assert {record.name for record in first} == {record.name for record in whole}
    infos = pickle.loads((data / 'infos.pkl').read_bytes())
    infos['data_list'][1]['instances'] = []  # The label was wrong.
    (data / 'infos.pkl').write_bytes(pickle.dumps(infos))
    repaired = run(folder, tmp_path / 'out', *options)
    assert {record.frame for record in repaired} == {'000000', '000002'}
    for info in infos['data_list']:
        info['instances'] = []
    (data / 'infos.pkl').write_bytes(pickle.dumps(infos))
    with pytest.raises(SystemExit, match='A benchmark needs annotated objects.*annotated split'):
        run(folder, tmp_path / 'out', *options)


def test_a_method_that_fails_does_not_lose_the_others(folder, whole, tmp_path, failing, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path, '--methods', 'Random', 'Failing')
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    reason = 'Failing: failed on 2 of 3 frames, as on number 1: RuntimeError: out of memory, or so'
    assert reason in out
    assert reason in (tmp_path / 'table.md').read_text()
    assert '2 frames are left out for all methods' in out
    records = load_records(tmp_path / 'records.json')
    assert {record.frame for record in records} == {'000000'}
    assert {record.method for record in records} == {'Random', 'Failing'}
    # What the other one measured is there, also on those frames.
    assert same(run(folder, tmp_path, '--methods', 'Random'), whole)


def test_a_map_with_nan_is_named_with_its_frame(folder, tmp_path, failing):
    with pytest.raises(SystemExit):
        run(folder, tmp_path, '--methods', 'Failing')
    (nan,) = (tmp_path / 'frames').glob('*_000002.failed')
    assert "Frame '000002', Failing, target 'all'" in nan.read_text()


def test_a_method_that_fails_everywhere_is_left_out(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError('never works')

    monkeypatch.setattr(Failing, 'explain', fail)
    monkeypatch.setitem(EXPLAINERS._entries, 'Failing', Failing)
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path, '--methods', 'Random', 'Failing')
    assert stopped.value.code == 1
    records = load_records(tmp_path / 'records.json')
    assert {record.method for record in records} == {'Random'}
    assert len({record.frame for record in records}) == 3


def test_a_frame_that_cannot_be_read_does_not_stop_the_others(folder, tmp_path, capsys):
    (folder / 'data/links').mkdir()
    for name in ('000000.bin', '000002.bin'):
        (folder / 'data/links' / name).symlink_to(folder / 'data/velodyne' / name)
    options = ['--cfg-options', 'test_dataloader.dataset.data_prefix.pts=links']
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path, '--methods', 'Random', *options)
    assert stopped.value.code == 1
    assert (
        'Random: failed on 1 of 3 frames, as on number 1: FileNotFound' in capsys.readouterr().out
    )


def test_a_full_disk_says_so_and_loses_nothing(folder, whole, tmp_path, monkeypatch):
    calls, real = [], os.fsync

    def full(descriptor):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real(descriptor)

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(SystemExit, match='No space left on device.*make room'):
        run(folder, tmp_path, *QUICK)
    monkeypatch.undo()
    files = sorted((tmp_path / 'frames').iterdir())
    assert files
    assert [path.suffix for path in files] == ['.json'] * 2
    assert same(run(folder, tmp_path, *QUICK), whole)


def test_shares_of_the_frames_give_the_same(folder, whole, tmp_path):
    plan = tool.plan_of(tool.parse_args([str(folder / 'benchmark.py'), *QUICK]))
    for rank, indices in enumerate([[0, 2], [1]]):
        run_frames(FrameBenchmark(plan, tmp_path), indices, rank)
    assert same(FrameBenchmark(plan, tmp_path).collect().records, whole)


@pytest.mark.slow
def test_two_processes_give_the_same(folder, whole, tmp_path, monkeypatch):
    paths = [str(ROOT / 'plugins'), str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))
    assert same(run(folder, tmp_path, '--workers', '2', *QUICK), whole)


def test_options_of_a_method_win_over_those_of_the_configuration(folder):
    methods = ['FFAM', 'FFAM(k=4)', 'GradCAM', 'GradCAM(k=2)']
    plan = tool.plan_of(tool.parse_args([str(folder / 'benchmark.py'), '--methods', *methods]))
    assert plan.methods == {
        'FFAM': dict(type='FFAM', rank=4),
        'FFAM(k=4)': dict(type='FFAM', rank=4, k=4),
        'GradCAM': dict(type='GradCAM'),
        'GradCAM(k=2)': dict(type='GradCAM', k=2),
    }


def test_other_data_is_measured_anew(folder, tmp_path):
    run(folder, tmp_path, '--methods', 'Random')
    before = set((tmp_path / 'frames').glob('*.json'))
    options = ['--cfg-options', 'test_dataloader.dataset.data_prefix.pts=./velodyne']
    run(folder, tmp_path, '--methods', 'Random', *options)
    assert len(set((tmp_path / 'frames').glob('*.json')) - before) == len(before) == 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--methods', 'Grad-CAMM'], r"Unknown method 'Grad-CAMM': .*'FFAM', 'IG', 'Random'"),
        (['--methods', 'FFAM released'], "Unknown method 'FFAM released'"),
        (['--methods', 'FFAM(rank=x)'], 'Unknown method'),
        (['--methods', 'FFAM(ranks=3)'], "'FFAM': .*'ranks'; expected some of .*'rank'"),
        (['--targets', 'colour'], "Unknown target 'colour'"),
        (['--reference', 'ODAM'], "Unknown reference 'ODAM'"),
        (['--cfg-options', 'benchmark.metrics=[pgg]'], 'Unknown metrics .*pgg'),
        (['--cfg-options', 'benchmark.metric=[pg]'], r"Unknown entries \['metric'\]"),
        (['--cfg-options', 'load_from=None'], 'has no load_from'),
        (['--cfg-options', 'benchmark.protocol.steps=1'], 'steps >= 2'),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(folder, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        run(folder, tmp_path, *options)
    assert not (tmp_path / 'frames').exists()


@pytest.mark.parametrize('options', [['--metrics', 'pgg'], ['--workers', '0'], ['--frames', '-1']])
def test_options_out_of_range(folder, tmp_path, options, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path, *options)
    assert stopped.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_no_matched_object_is_said(folder, tmp_path):
    with pytest.raises(SystemExit, match='No detection matched an object'):
        run(folder, tmp_path, '--cfg-options', 'benchmark.protocol.iou_thr=0.99')
    assert len(list((tmp_path / 'frames').glob('*.json'))) == 3 * len(METHODS)


def test_methods_are_drawn_side_by_side(folder, tmp_path, capsys):
    compare = load_tool('compare_methods')
    arguments = [str(folder / 'benchmark.py'), '--classes', 'Car', '--out', str(tmp_path / 'm.png')]
    compare.main([*arguments, *QUICK, '--frames', '000001'])
    assert (tmp_path / 'm.png').stat().st_size > 10_000
    assert [path.name for path in tmp_path.iterdir()] == ['m.png']
    with pytest.raises(SystemExit, match=r"matches an object of \['Pedestrian'\]"):
        compare.main([*arguments, *QUICK, '--classes', 'Car', 'Pedestrian'])
    with pytest.raises(SystemExit, match="No frame '77': expected a name as '000000'"):
        compare.main([*arguments, *QUICK, '--frames', '77'])
