"""The checks of a GPU: without one nothing is checked; on a CPU they are tried."""

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def checks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_checks

    yield gpu_checks
    for name in ('gpu_checks', 'gpu_subjects'):
        sys.modules.pop(name, None)


def test_without_a_gpu_nothing_is_checked(checks, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert checks.main([]) == 2
    assert capsys.readouterr().out == 'no GPU: nothing checked\n'


def test_a_dry_run_on_a_cpu(checks, capsys, tmp_path):
    wanted = [
        'versions and flags', 'tests marked gpu', 'LMD: residual, TF32 off and on',
        'no waits in LMD and the factorisation', 'neighbours, CPU against device',
        'factorisation, CPU against device', 'LMD parts, CPU against device', 'pinned transfer',
    ]  # fmt: skip
    out = tmp_path / 'new' / 'table.md'
    assert checks.main(['--device', 'cpu', '--only', *wanted, '--out', str(out)]) == 0
    printed = capsys.readouterr().out
    rows = {line.split(' | ')[0][2:]: line.split(' | ')[1] for line in printed.splitlines()
            if line.startswith('| ')}  # fmt: skip
    assert rows == {name: '-' if 'gpu' in name or 'waits' in name else 'pass' for name in wanted}
    assert out.read_text().count('\n') == len(wanted) + 2


def test_methods_and_metrics_are_tried_on_a_cpu(checks, capsys, monkeypatch):
    pytest.importorskip('mmdet3d')
    monkeypatch.setattr(checks, 'METHODS', {'GradCAM': {}})
    wanted = ['methods, CPU against device', 'metrics, CPU against device']
    assert checks.main(['--device', 'cpu', '--only', *wanted]) == 0
    assert capsys.readouterr().out.count('| pass |') == 2


def test_what_goes_wrong_is_a_check_that_failed(checks, monkeypatch, capsys):
    def wrong(_device):
        raise RuntimeError('CUDA error: | misaligned')

    monkeypatch.setitem(checks.CHECKS, 'pinned transfer', wrong)
    assert checks.main(['--device', 'cpu', '--only', 'pinned transfer']) == 1
    printed = capsys.readouterr().out
    assert '| pinned transfer | FAIL | RuntimeError: CUDA error: \\| misaligned |' in printed
    assert "failed: ['pinned transfer']" in printed


def test_no_check_begins_after_its_time(checks, capsys):
    assert checks.main(['--device', 'cpu', '--budget', '-1']) == 0
    assert capsys.readouterr().out.startswith(f'{len(checks.CHECKS)} checks on cpu')
