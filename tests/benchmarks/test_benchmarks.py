"""What the benchmarks share, and the script that runs them all."""

import argparse
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / 'benchmarks'
#: Not named by ``run_all.py``: which detectors run, comparisons, and what others import.
OTHERS = {
    'detectors_on_cpu.py', 'pcdet_detectors_on_cpu.py', 'explainer_variants.py', 'side_by_side.py',
    'run_all.py', 'lmd_bevfusion.py', 'lmd_pcdet_bevfusion.py', 'bevfusion_report.py',
    'occam_authors.py', 'gpu_checks.py', 'gpu_subjects.py',
}  # fmt: skip


@pytest.fixture
def folder(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield FOLDER
    for name in ('side_by_side', 'run_all'):
        sys.modules.pop(name, None)


def test_ratios_are_taken_round_by_round(folder):
    from side_by_side import Ratio

    ratio = Ratio.of([2.0, 9.0, 4.0], [1.0, 3.0, 8.0])
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (2.0, 0.5, 3.0, 3)
    assert str(ratio) == '2 (0.5 to 3)'


def test_sides_take_turns_and_the_first_ones_are_forgotten(folder):
    from side_by_side import Turns

    turns = Turns('cpu')
    assert turns.take('a', lambda: 7) == 7
    turns.forget()
    assert turns.seconds == {'a': []}
    turns.seconds = {'a': [1.0, 2.0, 3.0], 'b': [2.0, 8.0, 3.0]}
    assert turns.median('b') == 3
    assert turns.ratio('b', 'a').median == 2
    assert turns.table('halves', 'a').splitlines()[1] == 'b     3.0000 s  2 (1 to 4) halves'


def test_a_report_is_printed_and_saved(folder, tmp_path, capsys):
    from side_by_side import Claim, Ratio, report

    args = argparse.Namespace(device='cpu', json=tmp_path / 'new' / 'a.json')
    ratio = Ratio.of([3.0], [2.0])
    report(args, [Claim('it', 'at most 2', ratio)], {'more': ratio})
    assert 'it: 1.5 (1.5 to 1.5) (aim: at most 2)' in capsys.readouterr().out
    saved = json.loads(args.json.read_text())
    assert saved['claims'] == [{'what': 'it', 'aim': 'at most 2', 'found': '1.5 (1.5 to 1.5)'}]
    assert saved['more'] == {'median': 1.5, 'low': 1.5, 'high': 1.5, 'rounds': 1}
    assert {'processor', 'threads', 'load', 'torch', 'numpy'} <= saved['machine'].keys()


def test_all_are_run_and_those_that_fail_are_told(folder, tmp_path, monkeypatch, capsys):
    import run_all

    good, bad = tmp_path / 'good.py', tmp_path / 'bad.py'
    good.write_text(
        'import json, sys\n'
        "row = dict(what=' '.join(sys.argv[1:-2]), aim='1', found='2')\n"
        "json.dump(dict(claims=[row]), open(sys.argv[-1], 'w'))\n"
    )
    bad.write_text("raise SystemExit('no data')\n")
    runs = {
        'good': run_all.Run(str(good), ('x',), ('quick',), clouds=1),
        'drawn': run_all.Run(str(good), plots=True),
        'bad': run_all.Run(str(bad)),
    }
    monkeypatch.setattr(run_all, 'RUNS', runs)
    options = ['--out', str(tmp_path / 'out'), '--clouds', 'a.bin', 'b.bin']
    assert run_all.main([*options, '--only', 'good']) == 0
    assert '| a.bin x | 1 | 2 |' in capsys.readouterr().out
    assert run_all.main([*options, '--quick']) == 1
    text = (tmp_path / 'out' / 'table.md').read_text()
    assert '| a.bin x quick | 1 | 2 |' in text
    assert '| bad failed |' in text
    assert f'| --plot {tmp_path}/out/drawn.png | 1 | 2 |' in text
    assert (tmp_path / 'out' / 'bad.log').read_text() == 'no data\n'


def test_every_benchmark_is_run_by_one_command(folder):
    import run_all

    there = {path.name for path in FOLDER.glob('*.py')}
    named = {run.script for run in run_all.RUNS.values()}
    assert named | OTHERS == there
    text = (FOLDER / 'README.md').read_text()
    assert [name for name in sorted(there) if f'`{name}`' not in text] == []


def test_options_that_are_given_exist(folder):
    import run_all

    shared = (FOLDER / 'side_by_side.py').read_text()
    assert "'--json'" in shared
    assert "'--device'" in shared
    for run in run_all.RUNS.values():
        text = (FOLDER / run.script).read_text()
        rounds = '--frames' if "arguments(__doc__, 'frames')" in text else '--runs'
        for option in (*run.args, *run.quick):
            if option.startswith('--'):
                assert option == rounds or f"'{option}'" in text, (run.script, option)
