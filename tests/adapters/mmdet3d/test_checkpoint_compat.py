"""What MMEngine's training writes is loaded by MMEngine, whatever code a file holds stays there."""

import pickle
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint

from explain3d.adapters.mmdet3d.checkpoint_compat import (
    guard_checkpoint_loaders,
    ignore_stored_configuration,
)
from explain3d.core.errors import UnsafeCheckpointError


class _Payload:
    def __reduce__(self):
        return print, ('code of the checkpoint ran',)


@pytest.fixture(autouse=True)
def _guarded():
    guard_checkpoint_loaders()
    schemes = dict(CheckpointLoader._schemes)
    guard_checkpoint_loaders()
    assert schemes == dict(CheckpointLoader._schemes)  # Once is enough.


@pytest.fixture
def trained(tmp_path):
    """A checkpoint as MMEngine writes it while it trains."""
    buffer = HistoryBuffer()
    for value in (1.0, 2.0, 6.0):
        buffer.update(value)
    hub = {
        'log_scalars': OrderedDict(loss=buffer),
        'runtime_info': {'seed': np.int64(3), 'name': np.str_('run'), 'best': np.float64(0.5)},
    }
    state = {'weight': torch.full((1, 1), 2.0), 'bias': torch.zeros(1)}
    torch.save({'state_dict': state, 'message_hub': hub}, tmp_path / 'c.pth')
    return str(tmp_path / 'c.pth')


def test_engine_loads_the_history_of_a_run(trained):
    loaded = CheckpointLoader.load_checkpoint(trained, logger='silent')['message_hub']
    assert type(loaded['log_scalars']['loss']) is HistoryBuffer
    assert loaded['log_scalars']['loss'].mean() == pytest.approx(3.0)
    assert loaded['runtime_info'] == {'seed': 3, 'name': 'run', 'best': 0.5}
    model = torch.nn.Linear(1, 1)
    load_checkpoint(model, trained, logger='silent')  # As init_model does.
    assert model.weight.item() == 2.0


def test_a_load_of_ones_own_is_as_torch_has_it(trained):
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        torch.load(trained, weights_only=True)


def test_other_code_is_still_refused(tmp_path, capsys):
    path = str(tmp_path / 'c.pth')
    torch.save({'state_dict': {}, 'meta': _Payload()}, path)
    with pytest.raises(UnsafeCheckpointError, match=r'c\.pth.*print'):
        CheckpointLoader.load_checkpoint(path, logger='silent')
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        torch.load(path, weights_only=True)
    assert 'code of the checkpoint ran' not in capsys.readouterr().out


class _Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(torch.stack(list(inputs))).sum()}


def _runner(folder, **arguments):
    return Runner(
        _Model(),
        str(folder),
        train_dataloader=dict(
            dataset=[torch.ones(1)] * 2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=dict(type='OneCycleLR', eta_max=0.1, total_steps=4, by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        default_scope='mmengine',
        log_level='ERROR',
        **arguments,
    )


def test_training_goes_on_and_runs_nothing_of_the_file(tmp_path, monkeypatch):
    first = _runner(tmp_path, experiment_name='first')
    first.train()
    path = str(tmp_path / 'iter_2.pth')
    stored = CheckpointLoader.load_checkpoint(path, logger='silent')
    stored['meta']['config'] = "import sys\nsys.modules['ran'] = sys\n"
    torch.save(stored, path)
    monkeypatch.delitem(sys.modules, 'ran', raising=False)
    second = _runner(tmp_path, experiment_name='second', load_from=path, resume=True)
    ignore_stored_configuration(second)
    second.load_or_resume()
    assert 'ran' not in sys.modules
    assert second.iter == 2
    assert second.message_hub.get_scalar('train/loss').data[0].shape == (2,)
    assert torch.equal(second.model.layer.weight, first.model.layer.weight)


class _Fake:
    """A runner that resumes when it is told to train."""

    def load_checkpoint(self):
        return {'meta': {'config': 'text', 'iter': 2}}

    def train(self):
        self.loaded = self.load_checkpoint()


def test_the_training_tool_runs_nothing_of_the_file(tmp_path, monkeypatch):
    path = Path(__file__).parents[3] / 'tools' / 'train.py'
    main = runpy.run_path(str(path))['main']
    runner = _Fake()
    monkeypatch.setitem(main.__globals__, 'build_runner', lambda config: runner)
    monkeypatch.setitem(main.__globals__, 'leave_processes', lambda: None)
    (tmp_path / 'config.py').write_text('')
    main([str(tmp_path / 'config.py'), '--resume'])
    assert runner.loaded == {'meta': {'iter': 2}}
