"""The command that averages the maps in folders of results."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import pytest

from explain3d.core.errors import InputError
from explain3d.core.results import ResultStore
from explain3d.metrics.average_files import load_averages
from tests.helpers.average_cases import random_frames

TOOL = Path(__file__).parents[2] / 'tools' / 'average_maps.py'
OPTIONS = ['--cells', '8', '4', '4', '--iou-thr', '0.5', '--draws', '20']
PLAIN = [*OPTIONS, '--no-pictures']


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('average_maps', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, frames):
    for frame in frames:
        ResultStore(folder).save(frame)
    return str(folder)


def averages(folder):
    table = json.loads((folder / 'table.json').read_text())
    return table, load_averages(folder / 'Car.npz')


def test_two_folders_are_one_run(tool, tmp_path, capsys):
    frames = random_frames(4)
    whole = write(tmp_path / 'whole', frames)
    parts = [write(tmp_path / name, fs) for name, fs in (('b', frames[2:]), ('a', frames[:3]))]
    tool.main([whole, *PLAIN])
    assert '- true positives: 4\n- false positives: 8' in capsys.readouterr().out
    tool.main([*parts, *PLAIN, '--out-dir', str(tmp_path / 'out')])
    (one, maps), (two, others) = averages(tmp_path / 'whole/averages'), averages(tmp_path / 'out')
    assert one == two
    assert maps['fp'].points.sum() == others['fp'].points.sum() > 0
    # The folder of results may be averaged again: its averages are not taken for results.
    tool.main([whole, *PLAIN, '--weight', 'objects'])
    assert averages(tmp_path / 'whole/averages')[0]['protocol']['weight'] == 'objects'


def test_detectors_are_compared(tool, tmp_path):
    folders = [
        write(tmp_path / name, random_frames(1, seed, objects=1)) for seed, name in enumerate('ab')
    ]
    out = tmp_path / 'out'
    tool.main([*folders, *OPTIONS, '--compare', '--format', 'svg', '--out-dir', str(out)])
    assert {path.name for path in out.iterdir()} == {'a', 'b', 'detectors.svg'}
    assert (out / 'a/true_false.svg').exists()
    frames = random_frames(1)
    frames[0].method = 'ODAM'
    frames[0].frame_id = 'another'
    folders.append(write(tmp_path / 'c', frames))
    with pytest.raises(InputError, match=r"different ways, \{'method': \('FFAM', 'ODAM'\)\}"):
        tool.main([*folders, *OPTIONS])


def test_what_is_wrong_is_said(tool, tmp_path):
    with pytest.raises(SystemExit, match='has no result files: expected'):
        tool.main([str(tmp_path)])
    folder = write(tmp_path / 'z', random_frames(1))
    with pytest.raises(SystemExit, match='a folder of results: expected another'):
        tool.main([folder, '--out-dir', f'{folder}/../z'])
    same = [write(tmp_path / name, random_frames(1)) for name in ('x/ffam', 'y/ffam')]
    with pytest.raises(SystemExit, match='expected different names'):
        tool.main([*same, *OPTIONS, '--compare'])


def test_the_example_of_the_page_runs(tool, tmp_path, monkeypatch):
    page = (TOOL.parents[1] / 'docs/average_maps.md').read_text()
    (example,) = [part for part in re.findall(r'```python\n(.*?)```', page, re.S) if 'load' in part]
    folder = write(tmp_path / 'results', random_frames(1))
    out = tmp_path / 'work_dirs/average_maps'
    tool.main([folder, *PLAIN, '--out-dir', str(out)])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert names['car'].of('h').shape == names['car'].grid.shape


def test_thresholds_of_the_command_line(tool):
    args = tool.parse_args(['x', '--iou-thr', 'dict(car=0.7, truck=0.5)'])
    assert tool.protocol_of(args).iou_thr == {'car': 0.7, 'truck': 0.5}
    assert tool.protocol_of(tool.parse_args(['x', '--iou-thr', '0.4'])).iou_thr == 0.4


def test_it_imports_host_neutral_parts_alone():
    """That these import no host is tested in tests/test_imports.py."""
    tree = ast.parse(TOOL.read_text())
    ours = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    ours = [name for name in ours if name.startswith('explain3d')]
    assert len(ours) > 5
    assert {name.split('.')[1] for name in ours} == {'core', 'metrics', 'visualization'}
