"""Shipped checkpoints hold the weights of training, rounded to float16, and nothing else."""

import importlib.util
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from explain3d.adapters.checkpoint_reading import write_checkpoint

TOOL = Path(__file__).parents[2] / 'tools' / 'export_checkpoint.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('export_checkpoint', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def state() -> OrderedDict:
    model = nn.ModuleDict({'trunk': nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))})
    model['head'] = nn.Linear(4, 2)
    return model.state_dict()


def test_shrink_rounds_floats_and_keeps_counters(tool, state):
    small = tool.shrink(state)
    for name, value in state.items():
        if value.is_floating_point():
            assert small[name].dtype == torch.float16
            # Half precision has 11 significant bits.
            torch.testing.assert_close(small[name].float(), value, rtol=2**-11, atol=1e-7)
        else:
            assert small[name].dtype == value.dtype
            assert torch.equal(small[name], value)


def test_shrink_refuses_what_does_not_fit(tool, state):
    state['head.weight'] = state['head.weight'] + 1e6
    with pytest.raises(ValueError, match='head.weight: a value does not fit float16'):
        tool.shrink(state)


def test_transfer_renames_drops_and_keeps_versions(tool, state):
    moved = tool.transfer(state, {'trunk': 'pts_trunk'}, ['head'])
    assert set(moved) == {k.replace('trunk', 'pts_trunk') for k in state if k.startswith('trunk')}
    assert moved._metadata['pts_trunk.1'] == state._metadata['trunk.1'] == {'version': 2}
    assert 'head' not in moved._metadata


def test_versions_survive_the_file(tool, state, tmp_path):
    torch.save({'state_dict': tool.shrink(state)}, tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)['state_dict']
    assert loaded._metadata == state._metadata


def test_average_weighs_floats_and_keeps_counters_and_versions(tool, state):
    other = {k: v + 2 for k, v in state.items()}
    mixed = tool.average(state, other, 0.25)
    for name, value in state.items():
        wanted = value + 0.5 if value.is_floating_point() else value
        torch.testing.assert_close(mixed[name], wanted, rtol=0, atol=1e-6)
    assert mixed._metadata == state._metadata


def test_average_refuses_another_model_and_other_shares(tool, state):
    other = {k: v for k, v in state.items() if k != 'head.bias'}
    with pytest.raises(ValueError, match=r'these differ: head\.bias'):
        tool.average(state, other, 0.5)
    with pytest.raises(ValueError, match=r'in \[0, 1\], received 1\.5'):
        tool.average(state, state, 1.5)


class _Payload:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_of_the_source_runs_only_if_it_is_trusted(tool, state, tmp_path, monkeypatch):
    made, source = tmp_path / 'made', str(tmp_path / 'c.pth')
    meta = {'iter': 3, 'dataset_meta': {'classes': ('Car',)}, 'seed': np.int64(1)}

    def export(*options):
        monkeypatch.setattr('sys.argv', ['tool', source, str(tmp_path / 'out.pth'), *options])
        tool.main()
        return torch.load(tmp_path / 'out.pth', weights_only=True)

    torch.save({'state_dict': state, 'meta': meta}, source)
    assert export()['meta']['dataset_meta'] == {'classes': ['Car']}
    (tmp_path / 'out.pth').unlink()
    torch.save({'state_dict': state, 'meta': {**meta, 'more': _Payload(str(made))}}, source)
    with pytest.raises(SystemExit, match='mkdir.*--trust'):
        export()
    assert not made.exists()
    assert not (tmp_path / 'out.pth').exists()
    assert set(export('--trust')['state_dict']) == set(state)
    assert made.exists()


def test_equal_weights_give_equal_bytes_and_a_failure_leaves_the_old_file(tmp_path):
    for name in 'ab':
        write_checkpoint({'state_dict': {'w': torch.ones(2)}}, tmp_path / name / 'c.pth')
    before = (tmp_path / 'a' / 'c.pth').read_bytes()
    assert before == (tmp_path / 'b' / 'c.pth').read_bytes()
    with pytest.raises(Exception, match='pickle'):
        write_checkpoint({'state_dict': lambda: None}, tmp_path / 'a' / 'c.pth')
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['c.pth']
    assert (tmp_path / 'a' / 'c.pth').read_bytes() == before
