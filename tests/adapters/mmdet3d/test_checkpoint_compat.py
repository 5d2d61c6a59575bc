"""Checkpoints of MMEngine load with torch's safe loader, and only what they hold does."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.logging import HistoryBuffer

from explain3d.adapters.mmdet3d.checkpoint_compat import allow_engine_checkpoints


class _Payload:
    def __reduce__(self):
        return print, ('code of the checkpoint ran',)


@pytest.fixture(autouse=True)
def _allowed():
    allow_engine_checkpoints()


def test_history_of_a_run_loads(tmp_path):
    buffer = HistoryBuffer()
    for value in (1.0, 2.0, 6.0):
        buffer.update(value)
    hub = {
        'log_scalars': OrderedDict(loss=buffer),
        'runtime_info': {'seed': np.int64(3), 'name': np.str_('run'), 'best': np.float64(0.5)},
    }
    torch.save({'state_dict': {'w': torch.ones(2)}, 'message_hub': hub}, tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)['message_hub']
    assert loaded['log_scalars']['loss'].mean() == pytest.approx(3.0)
    assert loaded['runtime_info'] == {'seed': 3, 'name': 'run', 'best': 0.5}


def test_other_code_is_still_refused(tmp_path, capsys):
    torch.save({'state_dict': {}, 'meta': _Payload()}, tmp_path / 'c.pth')
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        torch.load(tmp_path / 'c.pth', weights_only=True)
    assert 'code of the checkpoint ran' not in capsys.readouterr().out
