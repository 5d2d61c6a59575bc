"""Figures of a sample on the disk: sound, or computed again."""

import numpy as np
import pytest

pytest.importorskip('mmengine')

from explain3d.adapters.mmdet3d.lmd.separation_state import SeparationState
from explain3d.core.errors import ResultFileError
from explain3d.core.results_archive import write_archive
from explain3d.core.results_check import seal
from explain3d.metrics.moments import Moments


@pytest.fixture
def state(tmp_path):
    found = SeparationState(tmp_path, {'a': 1}, ['one', 'two'])
    found.save(3, Moments.of(np.array([[0.5, np.nan], [1.0, 2.0]])))
    return found


def test_figures_come_back_to_the_last_bit(state):
    found, expected = state.load(3), Moments.of(np.array([[0.5, np.nan], [1.0, 2.0]]))
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values)
    assert state.load(4) is None
    assert SeparationState(state.folder, {'a': 2}, ['one', 'two']).load(3) is None


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('count', np.array([-1, 1])),
        ('count', np.array([1.0, 1.0])),
        ('excluded', np.array([0])),
        ('mean', np.array([np.nan, 0])),
        ('squares', np.array([-1.0, 0])),
        ('squares', np.zeros((2, 1))),
        ('more', np.zeros(2)),
    ],
)
def test_figures_that_do_not_fit_are_computed_again(state, name, value):
    arrays = {**vars(state.load(3)), name: value}
    with open(state.path_of(3), 'wb') as file:
        write_archive(file, seal({'key': state.key}, arrays))
    assert state.load(3) is None


def test_a_folder_is_no_file_of_figures(state):
    state.path_of(4).mkdir()
    with pytest.raises(ResultFileError, match='is a folder: expected a file of figures'):
        state.load(4)
